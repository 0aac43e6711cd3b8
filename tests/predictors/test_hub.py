import huggingface_hub
import pytest
import torch
from huggingface_hub.utils import LocalEntryNotFoundError, RepositoryNotFoundError

from diffcern.errors import DiffcernError, UsageError
from diffcern.predictors import load_predictor
from diffcern.predictors.hub import fetch
from diffcern.predictors.native import NativePredictorConfig, native_predictor, save_predictor


@pytest.fixture
def native(tmp_path):
    config = NativePredictorConfig("small-resnet", 16, tuple("ab"), (0.5,) * 3, (0.5,) * 3, width=4, depth=1)
    save_predictor(native_predictor(config), config, tmp_path / "native", torch.float32)
    return tmp_path / "native"


def test_a_repository_in_the_cache_is_the_folder(native, publish):
    publish(native, "someone/digits")
    images = torch.rand(2, 3, 16, 16)
    expected = load_predictor(str(native))(images)
    torch.testing.assert_close(load_predictor("hf:someone/digits")(images), expected)
    torch.testing.assert_close(load_predictor("hf:someone/digits@main")(images), expected)
    torch.testing.assert_close(load_predictor(f"hf:{native}")(images), expected)


def test_a_repository_that_is_not_in_the_cache_needs_a_network():
    with pytest.raises(DiffcernError, match=r"someone/missing.*local folder.*network"):
        load_predictor("hf:someone/missing")


def test_a_repository_that_another_library_fetched_in_part(native, publish, monkeypatch):
    (native / "config.json").write_text("{}")
    publish(native, "someone/digits")

    def incomplete(*_, **__):
        raise LocalEntryNotFoundError("2 files are missing")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", incomplete)
    assert load_predictor("hf:someone/digits").class_names == ("a", "b")
    with pytest.raises(DiffcernError, match="2 files are missing"):
        load_predictor("hf:someone/missing")


def test_a_repository_that_does_not_exist(monkeypatch):
    def missing(*_, **__):
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)  # its constructor wants the server's answer

    monkeypatch.setattr(huggingface_hub, "snapshot_download", missing)
    with pytest.raises(DiffcernError, match=r"no repository 'someone/missing'.*hf auth login"):
        load_predictor("hf:someone/missing")


@pytest.mark.parametrize("name", ["", "a/b/c", "no spaces"])
def test_a_name_that_can_be_no_repository(name):
    with pytest.raises(UsageError, match="neither a folder nor a hub repository"):
        fetch(name)


@pytest.mark.parametrize("name", ["embeded:digits", "resnet50", "no/such/folder"])
def test_an_unknown_name_shows_what_names_look_like(name):
    with pytest.raises(UsageError, match=r"embedded:digits.*timm:NAME"):
        load_predictor(name)


def test_a_folder_that_holds_something_else(tmp_path):
    with pytest.raises(DiffcernError, match=r"predictor\.json"):
        load_predictor(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DiffcernError, match="not JSON"):
        load_predictor(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", None, r"lacks model\.safetensors; pytorch_model\.bin is a pickle.*safetensors only"),
        ("predictor.json", b"{}", r"predictor\.json: the key 'architecture' is missing"),
        ("predictor.json", b"{", r"predictor\.json: it is not JSON: Expecting"),
        ("model.safetensors", b"", r"model\.safetensors: .*truncated"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(native, file, content, message):
    (native / "pytorch_model.bin").touch()
    (native / file).unlink() if content is None else (native / file).write_bytes(content)
    for allow_pickle in (False, True):
        with pytest.raises(DiffcernError, match=message) as error:
            load_predictor(str(native), allow_pickle=allow_pickle)
        assert ("truncated" in str(error.value)) == (content == b"")


def test_labels_choose_among_the_classes_of_a_closed_set():
    """Logits of the other classes are never looked at; the order is the one asked for."""
    name, images = "embedded:digits", torch.rand(3, 3, 16, 16)
    chosen = load_predictor(name, labels=["7", "1", "4"])
    assert chosen.class_names == ("7", "1", "4")
    assert torch.equal(chosen(images), load_predictor(name)(images)[:, [7, 1, 4]])
    assert torch.equal(chosen.restrict(["4", "7"])(images), load_predictor(name)(images)[:, [4, 7]])
    problems = {("7", "cat"): "classes: cat; the predictor knows 10", ("7", "7"): "given twice: 7", (): "at least one"}
    for labels, problem in problems.items():
        with pytest.raises(UsageError, match=problem):
            load_predictor(name, labels=labels)
    with pytest.raises(UsageError, match="not one string"):
        load_predictor(name, labels="cat,dog")
    with pytest.raises(UsageError, match="give labels"):
        load_predictor(name, templates=["a {}"])


def test_weights_in_a_single_file_say_how_they_are_converted(tmp_path):
    """As other programs exchange them: nothing in them says which network they are of."""
    (tmp_path / "model.pth").touch()
    with pytest.raises(UsageError, match=r"is a file, and predictors are folders\. model\.pth holds weights alone"):
        load_predictor(str(tmp_path / "model.pth"))
    with pytest.raises(DiffcernError, match=r"neither a predictor\.json .*model\.pth holds weights alone.*save_for_hf"):
        load_predictor(str(tmp_path))
