"""Models that people have and that no library expects: refused by name, never answered from wrongly."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import diffcern
from diffcern.errors import DiffcernError, UsageError
from diffcern.predictors import Predictor
from diffcern.priors import load_prior
from diffcern.priors.dit import named_classes, usual_frequencies

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Ending(nn.Module):
    """A linear network with something behind it."""

    def __init__(self, ending, outputs=6):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.ending = nn.Linear(192, outputs), ending

    def forward(self, images):
        return self.ending(self.layer(images.flatten(1)))


def normalised(z):
    positive = z.relu()
    return positive / positive.sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (torch.sigmoid, "as a sigmoid does of classes that do not exclude each other.*torch.logit"),
        (normalised, "answers with probabilities"),
        (lambda z: z.softmax(1), "answers with probabilities"),
    ],
)
def test_what_is_no_logit(ending, message):
    with pytest.raises(UsageError, match=message):
        Predictor(Ending(ending), tuple("abcdef"), size=8)(IMAGES)


@pytest.mark.parametrize("ending", [lambda z: z, lambda z: z.tanh(), lambda z: z.log_softmax(1), lambda z: 0 * z])
def test_what_may_be_logits(ending):
    assert Predictor(Ending(ending), tuple("abcdef"), size=8)(IMAGES).shape == (2, 6)
    Predictor(Ending(torch.sigmoid, 2), tuple("ab"), size=8)(IMAGES)  # four numbers may be so by chance


def test_no_network_and_no_gradient():
    with pytest.raises(UsageError, match=r"is a function: wrap it in a torch\.nn\.Module"):
        Predictor(lambda images: images.mean((2, 3)), tuple("abc"), size=8)
    predictor = Predictor(Ending(torch.Tensor.detach), tuple("abcdef"), size=8)
    for method in ("memo", "tent"):
        options = {"views": 2} if method == "memo" else {}
        with pytest.raises(DiffcernError, match=r"answer has no gradient|no parameters of the kind"):
            diffcern.adapt(predictor, None, method=method, **options)(IMAGES)


@pytest.mark.parametrize(
    "names",
    [
        {"0": "a", "1": "b"},
        {"0": "a", "1": "b", "2": "c", "3": "d"},
        {"1": "a", "2": "b", "3": "c"},
        {"0": "a", "1": "b", "2": 3},
        ["a", "b", "c"],
    ],
)
def test_names_of_a_dit_are_one_for_each_class(names):
    with pytest.raises(DiffcernError, match='names the 3 classes that the transformer has embeddings of, "0" to "2"'):
        named_classes(names, 3)


def test_names_of_a_dit_in_their_order():
    assert named_classes({"2": "c", "0": "a", "1": "b"}, 3) == ["a", "b", "c"]
    assert named_classes(None, 3) == ["0", "1", "2"]


def test_a_published_dit_is_known_however_its_folder_is_spelled(tmp_path, monkeypatch):
    for name in ("DiT-XL-2-256", "dit-xl-2-512", "my-DiT-XL-2-256-copy"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert usual_frequencies(".") == usual_frequencies(str(tmp_path / name)) == "published"
        monkeypatch.chdir(tmp_path)
        assert usual_frequencies(name) == "published"
    (tmp_path / "mine").mkdir()
    assert usual_frequencies(str(tmp_path / "mine")) == "diffusers"
    assert usual_frequencies("someone/DiT-XL-2-256@main") == "published"


def test_parts_and_adapters_given_as_a_prior(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x")
    with pytest.raises(DiffcernError, match=r"network alone \(UNet2DConditionModel\): give the folder of the whole"):
        load_prior(str(tmp_path / "unet"))
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "pytorch_lora_weights.safetensors").write_bytes(b"x")
    with pytest.raises(DiffcernError, match=r"adapter \(LoRA\) and no network: load its base model"):
        load_prior(str(tmp_path / "lora"))


@pytest.mark.parametrize("kind", ["L", "negative", "webp"])
def test_depth_that_is_no_millimetres(kind):
    import io

    from PIL import Image

    from diffcern.data import UnreadableImage
    from diffcern.data.maps import decode_depth, decode_mask

    buffer = io.BytesIO()
    if kind == "negative":
        Image.fromarray(np.full((4, 4), -5, np.int32)).save(buffer, "TIFF")
    else:
        Image.fromarray(np.full((4, 4), 7, np.uint8)).save(buffer, "PNG" if kind == "L" else "WEBP")
    message = {"L": "8 bits, which reach to 0.255 m", "negative": "negative values", "webp": "stored as WEBP"}[kind]
    with pytest.raises(UnreadableImage, match=message):
        (decode_mask if kind == "webp" else decode_depth)(buffer.getvalue(), "a")
    lossless = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), 7, np.uint8)).save(lossless, "WEBP", lossless=True)
    assert decode_mask(lossless.getvalue(), "a").unique().tolist() == [7]


@pytest.mark.parametrize(
    "held", ["diffusion_pytorch_model.non_ema.safetensors", "tf_model.h5", "model.int8.safetensors"]
)
def test_weights_that_pickles_would_not_help(tmp_path, held):
    from diffcern.weight_files import stored_weights

    (tmp_path / held).write_bytes(b"x")
    with pytest.raises(DiffcernError, match=f"has no weights under the names.*what is there: {held}") as raised:
        stored_weights("mine", tmp_path, {"": "diffusers"}, allow_pickle=False)
    assert "allow" not in str(raised.value)
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(DiffcernError, match="--allow-pickle"):
        stored_weights("mine", tmp_path, {"": "diffusers"}, allow_pickle=False)


def test_pictures_of_other_kinds_are_named(tmp_path):
    from diffcern.data import UnreadableImage, load_dataset

    for name in ("a.psd", "b.svg", "c.exr", "d.ico"):
        (tmp_path / name).write_bytes(b"what only other programs read")
    dataset = load_dataset(f"folder:{tmp_path}")
    assert list(dataset.ids) == ["a.psd", "b.svg", "c.exr", "d.ico"]
    for index in range(4):
        with pytest.raises(UnreadableImage, match="not an image of a known format"):
            dataset[index]
