import json

import pytest
import torch
import transformers
from torch import nn

from diffcern.errors import DiffcernError, UsageError
from diffcern.predictors import Predictor, load_predictor
from diffcern.predictors.image_processors import check_preprocessing, preprocessing

from .checkpoints import classifier, depth, dpt, rewrite, save, segmenter
from .conftest import LEVELS, check_adaptable, levels, tensor


@pytest.mark.parametrize("build", [classifier, segmenter, depth, dpt])
def test_a_model_answers_as_with_its_own_processor(build, tmp_path, photo):
    model = build(tmp_path)
    predictor = load_predictor(str(tmp_path))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    expected = processor(images=photo, return_tensors="pt")["pixel_values"]
    assert levels(predictor, photo, expected) < LEVELS
    with torch.no_grad():
        output, answer = predictor(tensor(photo)), model(predictor.prepare(tensor(photo)))
    if build is classifier:
        assert predictor.task == "classification"
        torch.testing.assert_close(output, answer.logits)
    elif build is segmenter:
        assert predictor.task == "segmentation"
        torch.testing.assert_close(output, nn.functional.interpolate(answer.logits, (427, 640), mode="bilinear"))
    else:
        assert (predictor.task, predictor.class_names) == ("depth", ())
        maps = answer.predicted_depth[:, None]
        torch.testing.assert_close(output, nn.functional.interpolate(maps, (427, 640), mode="bilinear")[:, 0])
        assert expected.shape[-2:] == ((32, 32) if build is dpt else (48, 64))  # squeezed, or in multiples of 16


@pytest.mark.parametrize("build", [classifier, segmenter, depth, dpt])
def test_adaptable(build, tmp_path):
    build(tmp_path)
    check_adaptable(load_predictor(str(tmp_path)))


def test_names_in_the_order_of_their_indices(tmp_path):
    classifier(tmp_path)
    assert load_predictor(f"hf:{tmp_path}").class_names == ("cat", "dog", "crane (2)", "crane (3)")


@pytest.mark.parametrize(
    ("processor", "task"),
    [
        (transformers.ConvNextImageProcessor(size={"shortest_edge": 224}), "classification"),
        (transformers.ConvNextImageProcessor(size={"shortest_edge": 384}), "classification"),
        (transformers.DeiTImageProcessor(), "classification"),
        (transformers.BitImageProcessor(size={"shortest_edge": 256}), "classification"),
        (transformers.CLIPImageProcessor(), "classification"),
        (transformers.BeitImageProcessor(size={"height": 160, "width": 160}, do_center_crop=False), "segmentation"),
        (transformers.DPTImageProcessor(), "depth"),
    ],
)
def test_image_processors(processor, task, photo):
    predictor = Predictor(nn.Identity(), (), task=task, **preprocessing(processor, "this"))
    check_preprocessing(predictor, processor, "this")
    assert levels(predictor, photo, processor(images=photo, return_tensors="pt")["pixel_values"]) < LEVELS


def test_image_processors_that_do_more_are_refused(tmp_path):
    """One swaps red and blue, which its resize and crop do not tell."""
    model = transformers.ViTForImageClassification(transformers.ViTConfig(hidden_size=12, num_hidden_layers=1))
    processor = transformers.MobileViTImageProcessor(
        size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, do_flip_channel_order=True
    )
    save(tmp_path, model, processor)
    with pytest.raises(DiffcernError, match=r"MobileViTImageProcessor.*diffcern\.Predictor"):
        load_predictor(str(tmp_path))
    with pytest.raises(DiffcernError, match="rule of its own"):
        preprocessing(transformers.GLPNImageProcessor(), "this")


def test_checkpoints_with_other_tensors_are_refused(tmp_path):
    classifier(tmp_path)
    rewrite(tmp_path, drop="classifier")
    with pytest.raises(DiffcernError, match=r"lacks 2 tensors \(classifier\.bias, classifier\.weight\)"):
        load_predictor(str(tmp_path))
    classifier(tmp_path)
    rewrite(tmp_path, extra=torch.ones(1))
    with pytest.raises(DiffcernError, match=r"has too many: 1 tensors \(extra\)"):
        load_predictor(str(tmp_path))
    rewrite(tmp_path, drop="extra", **{"classifier.bias": torch.ones(5)})
    with pytest.raises(DiffcernError, match=r"another shape or type of 1 tensors \(classifier\.bias\)"):
        load_predictor(str(tmp_path))


def test_tensors_that_are_lacking_but_unused_are_the_same_in_every_process(tmp_path):
    dpt(tmp_path)
    torch.manual_seed(1)
    first = load_predictor(str(tmp_path)).state_dict()
    torch.manual_seed(2)
    again = load_predictor(str(tmp_path)).state_dict()
    assert all(value.equal(again[name]) for name, value in first.items())
    rewrite(tmp_path, drop="neck.fusion_stage.layers.1.residual_layer1")
    with pytest.raises(DiffcernError, match=r"lacks .* tensors \(neck"):
        load_predictor(str(tmp_path))


def test_half_precision_weights_are_read_as_fp32(tmp_path):
    save(tmp_path, classifier(tmp_path).half())
    assert {value.dtype for value in load_predictor(str(tmp_path)).parameters()} == {torch.float32}


def test_pickled_weights_only_where_allowed(tmp_path, publish):
    model = classifier(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "model" / "pytorch_model.bin")
    publish(tmp_path / "model", "someone/pickled")
    image = torch.rand(1, 3, 32, 32)
    for name in (str(tmp_path / "model"), "hf:someone/pickled"):
        with pytest.raises(DiffcernError, match="allow_pickle=True"):
            load_predictor(name)
        loaded = load_predictor(name, allow_pickle=True)
        torch.testing.assert_close(loaded(image), model((image - 0.5) / 0.5).logits)


def test_code_in_a_repository_does_not_run(tmp_path):
    classifier(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "theirs.py").write_text("raise SystemExit('this ran')")
    with pytest.raises(DiffcernError, match="trust_remote_code"):
        load_predictor(str(tmp_path))


def test_models_of_another_kind_and_broken_ones(tmp_path):
    classifier(tmp_path)
    with pytest.raises(UsageError, match="emu; the predictor knows"):
        load_predictor(str(tmp_path), labels=["emu"])
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(DiffcernError, match="cannot load"):
        load_predictor(str(tmp_path))
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(DiffcernError, match=r"cannot load.*preprocessor_config\.json"):
        load_predictor(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["ViTModel"]}))
    with pytest.raises(DiffcernError, match=r"is a ViTModel; predictors are"):
        load_predictor(str(tmp_path))
