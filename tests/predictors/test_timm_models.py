import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf

from diffcern.errors import DiffcernError, UsageError
from diffcern.labels import imagenet_labels
from diffcern.predictors import load_predictor
from diffcern.predictors.timm_models import timm_architecture

from .conftest import LEVELS, check_adaptable, levels, loud, tensor

NAME = "test_vit.r160_in1k"  # timm's own for tests: 0.4 million weights, a published ImageNet classifier


def save(name, folder, safe=True, classes=None, **options):
    """A checkpoint as timm publishes them, with random weights."""
    model = loud(timm.create_model(name, num_classes=classes)).eval()
    save_for_hf(model, str(folder), model_config=options, safe_serialization=safe)
    return model


@pytest.mark.parametrize("name", [NAME, "test_resnet.r160_in1k", "test_efficientnet_gn.r160_in1k"])
def test_a_registry_model_sees_what_timm_shows_it(name, tmp_path, publish, photo):
    model = save(name, tmp_path / "model")
    publish(tmp_path / "model", f"timm/{name}")
    predictor = load_predictor(f"timm:{name}")
    config = timm.data.resolve_model_data_config(model)
    expected = timm.data.create_transform(**config, is_training=False)(photo)[None]
    assert levels(predictor, photo, expected) < LEVELS
    logits = predictor(tensor(photo))
    torch.testing.assert_close(logits, model(predictor.prepare(tensor(photo))))
    torch.testing.assert_close(logits, model(expected), atol=0.1, rtol=0)  # as far as the rounding above carries
    assert (predictor.class_names, predictor.class_ids, predictor.task) == (*imagenet_labels(), "classification")


@pytest.mark.parametrize("data", [{"crop_mode": "squash", "crop_pct": 1.0}, {"crop_mode": "squash"}, {"crop_pct": 1.0}])
def test_every_crop_mode_of_timm(data, tmp_path, photo):
    save(NAME, tmp_path, pretrained_cfg=data)
    predictor = load_predictor(f"timm:local-dir:{tmp_path}")
    config = timm.data.resolve_model_data_config(predictor.model)
    assert data.items() <= config.items()
    expected = timm.data.create_transform(**config, is_training=False)(photo)[None]
    assert levels(predictor, photo, expected) < LEVELS


def test_a_folder_is_told_by_its_files(tmp_path, publish):
    model = save(NAME, tmp_path / "model")
    publish(tmp_path / "model", "someone/theirs")
    image = torch.rand(1, 3, 160, 160)
    expected = model((image - 0.5) / 0.5)
    folder = str(tmp_path / "model")
    for name in (folder, f"timm:local-dir:{folder}", "hf:someone/theirs", "timm:hf-hub:someone/theirs"):
        torch.testing.assert_close(load_predictor(name)(image), expected, atol=1e-4, rtol=1e-4)


def test_adaptable(tmp_path):
    save(NAME, tmp_path)
    check_adaptable(load_predictor(str(tmp_path)))


def test_label_names_of_its_own(tmp_path):
    save(NAME, tmp_path / "a", classes=3, label_names=["cat", "dog", "cat"])
    with_doubles = load_predictor(str(tmp_path / "a"))
    assert with_doubles.class_names == ("cat (0)", "dog", "cat (2)")
    cranes = {"n02012849": "crane", "n03126707": "crane", "n01440764": "tench"}
    save(NAME, tmp_path / "b", classes=3, label_names=list(cranes), label_descriptions=cranes)
    described = load_predictor(str(tmp_path / "b"))
    assert described.class_names == ("crane (n02012849)", "crane (n03126707)", "tench")
    assert described.class_ids == tuple(cranes)


def test_outputs_without_names_are_refused(tmp_path):
    save(NAME, tmp_path, classes=5)
    with pytest.raises(DiffcernError, match="5 outputs and no label names"):
        load_predictor(str(tmp_path))


def test_pickled_weights_only_where_allowed(tmp_path, publish):
    model = save(NAME, tmp_path / "model", safe=False)
    publish(tmp_path / "model", f"timm/{NAME}")
    image = torch.rand(1, 3, 160, 160)
    for name in (f"timm:{NAME}", str(tmp_path / "model")):
        with pytest.raises(DiffcernError, match="allow_pickle=True"):
            load_predictor(name)
        torch.testing.assert_close(load_predictor(name, allow_pickle=True)(image), model((image - 0.5) / 0.5))
    with pytest.raises(DiffcernError, match=r"no safetensors weights.*another tag"):
        load_predictor("timm:vit_huge_patch16_gap_448.in1k_ijepa")  # exists on the authors' server only


def test_weights_that_do_not_fit(tmp_path):
    model = save(NAME, tmp_path)
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("blocks.1")}
    save_file(state | {"extra": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(DiffcernError, match=r"Missing key.*blocks\.1.*Unexpected key.*extra"):
        load_predictor(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(DiffcernError, match="cannot load"):
        load_predictor(str(tmp_path))


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_mambaout"])
def test_an_architecture_is_built_for_the_images(name):
    """Vision transformers take images of one size only, which is the one that is trained on."""
    model = timm_architecture(name, 10, 32).eval()
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 10)


def test_sizes_that_an_architecture_cannot_take():
    with pytest.raises(UsageError, match=r"test_vit of timm cannot take images of 8 pixels: .*divisible by patch size"):
        timm_architecture("test_vit", 10, 8)


@pytest.mark.parametrize("shape", [(40, 60), (160, 160), (300, 200)])
def test_images_of_any_size_become_those_of_a_fixed_one(shape, tmp_path):
    model = save(NAME, tmp_path)
    assert model.pretrained_cfg["fixed_input_size"]
    predictor = load_predictor(str(tmp_path))
    assert predictor.prepare(torch.rand(1, 3, *shape)).shape == (1, 3, 160, 160)
    assert predictor(torch.rand(1, 3, *shape)).shape == (1, 1000)


def test_names_that_timm_does_not_know():
    for name in ("resnet50.a1_in1kk", "resnet51", "nonsense:resnet50"):
        with pytest.raises(UsageError, match=r"timm has no model.*resnet5"):
            load_predictor(f"timm:{name}")
    with pytest.raises(UsageError, match=r"timm has no model 'resnet50\.x5'.*resnet50.*list_models"):
        timm_architecture("resnet50.x5", 10, 32)
    with pytest.raises(UsageError, match="no folder 'no/such'"):
        load_predictor("timm:local-dir:no/such")
    with pytest.raises(DiffcernError, match=r"timm/resnet50\.a1_in1k.*network"):
        load_predictor("timm:resnet50.a1_in1k")


@pytest.mark.parametrize("removed", [{"num_classes": 0}, {"num_classes": 0, "global_pool": ""}])
def test_a_folder_without_its_head_says_so(tmp_path, removed):
    """Its pooled features are no answers, and their number no number of classes."""
    timm.models.save_for_hf(timm.create_model("resnet18", **removed), tmp_path, safe_serialization=True)
    with pytest.raises(DiffcernError, match=r"without its classifier \(num_classes 0\): it gives features"):
        load_predictor(str(tmp_path))


def test_other_label_names_than_outputs(tmp_path):
    config = {"label_names": ["cat", "dog"]}
    model = timm.create_model("resnet18", num_classes=3)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True, model_config=config)
    with pytest.raises(DiffcernError, match="has 3 outputs and 2 label_names"):
        load_predictor(str(tmp_path))
