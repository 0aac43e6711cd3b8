import json

import pytest
import torch
import transformers
from torch import nn

from diffcern.errors import DiffcernError, UsageError
from diffcern.predictors import Predictor, load_predictor
from diffcern.predictors.image_processors import check_preprocessing, preprocessing

from .checkpoints import TOWER, classifier, depth, dpt, rewrite, save, segmenter
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
    with pytest.raises(DiffcernError, match=r"has no preprocessor_config\.json"):
        load_predictor(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["ViTModel"]}))
    with pytest.raises(DiffcernError, match=r"is a ViTModel; predictors are"):
        load_predictor(str(tmp_path))


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "5KB"}], ids=["one file", "shards"])
@pytest.mark.parametrize("variant", ["fp16", None])
def test_weights_of_one_precision_and_in_shards(tmp_path, publish, variant, options):
    """In fp32, whatever they are stored in: of a folder and of a repository in the cache."""
    model = classifier(tmp_path / "vit")
    expected = load_predictor(str(tmp_path / "vit"))
    (tmp_path / "vit" / "model.safetensors").unlink()
    model.half().save_pretrained(tmp_path / "vit", variant=variant, **options)
    publish(tmp_path / "vit", "someone/vit")
    images = torch.rand(2, 3, 40, 40)
    for name in (str(tmp_path / "vit"), "hf:someone/vit"):
        predictor = load_predictor(name)
        assert {parameter.dtype for parameter in predictor.parameters()} == {torch.float32}
        torch.testing.assert_close(predictor(images), expected(images), rtol=0, atol=0.01)  # rounded to half


def change(folder, file, **values):
    """Rewrites a configuration; None takes a key out."""
    content = json.loads((folder / file).read_text()) | values
    (folder / file).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"problem_type": "multi_label_classification"},
            r"is for multi_label_classification: its outputs are no classes",
        ),
        ({"problem_type": "regression"}, "is for regression: its outputs are no classes"),
        ({"id2label": {1: "a", 2: "b", 3: "c", 4: "d"}, "label2id": {}}, r"outputs 0 to 3, .* names 1 to 4: number"),
    ],
)
def test_heads_that_are_no_softmax_over_named_classes(tmp_path, values, message):
    classifier(tmp_path)
    change(tmp_path, "config.json", **values)
    with pytest.raises(DiffcernError, match=message):
        load_predictor(str(tmp_path))


def test_one_output_is_nothing_to_tell_apart(tmp_path):
    config = transformers.ViTConfig(**TOWER, num_labels=1)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    save(tmp_path, transformers.ViTForImageClassification(config), processor)
    with pytest.raises(DiffcernError, match="has one output"):
        load_predictor(str(tmp_path))


def test_names_that_are_numbers(tmp_path):
    classifier(tmp_path)
    change(tmp_path, "config.json", id2label={k: k for k in range(4)}, label2id={})
    try:
        predictor = load_predictor(str(tmp_path))
    except DiffcernError as error:
        if "id2label" not in str(error) or str(tmp_path) not in str(error):
            raise
        pytest.skip("older versions of transformers refuse names that are numbers, and say so")
    assert predictor.class_names == tuple("0123")


@pytest.mark.parametrize(
    "values",
    [
        {"image_mean": 0.5, "image_std": 0.25},
        {"rescale_factor": 1 / 127.5},
        {"do_rescale": False, "image_mean": [120.0] * 3, "image_std": [60.0] * 3},
        {"rescale_factor": 1 / 127.5, "do_normalize": False},
        {"size": 32},
    ],
)
def test_processors_in_other_words(tmp_path, photo, values):
    model = classifier(tmp_path)
    change(tmp_path, "preprocessor_config.json", **values)
    predictor = load_predictor(str(tmp_path))
    expected = transformers.AutoImageProcessor.from_pretrained(tmp_path)(images=photo, return_tensors="pt")[
        "pixel_values"
    ]
    assert levels(predictor, photo, expected) < LEVELS
    torch.testing.assert_close(predictor(tensor(photo)), model(expected).logits, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("values", [{"size": {"height": 48, "width": 48}}, {"do_resize": False}])
def test_a_processor_that_disagrees_with_its_network(tmp_path, values):
    classifier(tmp_path)
    change(tmp_path, "preprocessor_config.json", **values)
    with pytest.raises(
        DiffcernError, match=r"disagrees with itself: .* built for image_size 32 .*: correct preprocessor_c"
    ):
        load_predictor(str(tmp_path))
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(DiffcernError, match=r"has no preprocessor_config\.json, which says how"):
        load_predictor(str(tmp_path))


def test_a_network_that_takes_other_sizes_than_it_says(tmp_path):
    """As Dinov2, whose positions are interpolated: 518 in its configuration, 224 in its processor's."""
    config = transformers.Dinov2Config(**TOWER | {"image_size": 56}, num_labels=3)
    processor = transformers.BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    save(tmp_path, transformers.Dinov2ForImageClassification(config), processor)
    assert load_predictor(str(tmp_path))(torch.rand(1, 3, 40, 40)).shape == (1, 3)
