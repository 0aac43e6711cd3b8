import json

import pytest
import torch
import transformers

from diffcern.errors import UsageError
from diffcern.methods.parameters import choose_parameters
from diffcern.predictors import load_predictor

from .checkpoints import clip, rewrite, siglip, siglip2, siglip_words
from .conftest import LEVELS, check_adaptable, levels, tensor

LABELS = ["cat", "dog", "a fish"]


@pytest.mark.parametrize("build", [clip, siglip, siglip2])
def test_one_template_gives_the_models_own_logits(build, tmp_path, photo):
    model = build(tmp_path)
    predictor = load_predictor(str(tmp_path), labels=LABELS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    prompts = [f"a photo of a {label}." for label in LABELS]
    if build is clip:
        assert tokenizer("CAT")["input_ids"] == tokenizer.convert_tokens_to_ids(
            ["<|startoftext|>", "cat</w>", "<|endoftext|>"]
        )
    padding = {"padding": True} if build is clip else {"padding": "max_length", "max_length": 24}
    tokens = tokenizer(prompts, return_tensors="pt", **padding)
    mask = {"attention_mask": tokens["attention_mask"]} if build is clip else {}  # SigLIP reads its padding
    pixels = predictor.prepare(tensor(photo))
    with torch.no_grad():
        answer = model(input_ids=tokens["input_ids"], pixel_values=pixels, **mask)
        torch.testing.assert_close(predictor(tensor(photo)), answer.logits_per_image)
    assert (predictor.class_names, predictor.class_ids, predictor.task) == (tuple(LABELS), None, "classification")


@pytest.mark.parametrize("build", [clip, siglip])
def test_images_as_the_models_own_processor_makes_them(build, tmp_path, photo):
    build(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    expected = processor(images=photo, return_tensors="pt")["pixel_values"]
    assert levels(load_predictor(str(tmp_path), labels=LABELS), photo, expected) < LEVELS


@pytest.mark.parametrize("build", [clip, siglip])
def test_templates_are_averaged_after_and_before_normalisation(build, tmp_path):
    build(tmp_path)
    templates = ["a photo of a {}.", "a picture of {}"]
    one, two = (load_predictor(str(tmp_path), labels=LABELS, templates=[template]).model.text for template in templates)
    both = load_predictor(str(tmp_path), labels=LABELS, templates=templates).model.text
    torch.testing.assert_close(both, torch.nn.functional.normalize(one + two, dim=-1))
    assert not torch.allclose(one, two, atol=1e-3)


@pytest.mark.parametrize("build", [clip, siglip])
def test_only_the_image_tower_is_adapted(build, tmp_path):
    model = build(tmp_path)
    predictor = load_predictor(str(tmp_path), labels=LABELS)
    check_adaptable(predictor)
    parts = [model.vision_model, *([model.visual_projection] if build is clip else [])]
    assert sum(p.numel() for p in predictor.parameters()) == sum(p.numel() for part in parts for p in part.parameters())
    assert choose_parameters(predictor, "norm")
    images = torch.rand(2, 3, 32, 32)
    predictor(images).softmax(-1).square().sum().backward()
    assert sum(p.grad is not None and p.grad.abs().sum() > 0 for p in predictor.parameters()) > 10


def test_labels_and_templates_are_checked(tmp_path):
    clip(tmp_path)
    name = str(tmp_path)
    with pytest.raises(UsageError, match=r"needs labels.*load_predictor\(\.\.\., labels="):
        load_predictor(name)
    with pytest.raises(UsageError, match="given twice: dog"):
        load_predictor(name, labels=["dog", "cat", "dog"])
    with pytest.raises(UsageError, match="at least one"):
        load_predictor(name, labels=[])
    for templates in (["a photo"], []):
        with pytest.raises(UsageError, match="where the label goes"):
            load_predictor(name, labels=LABELS, templates=templates)
    with pytest.raises(UsageError, match=r"'a photo of a xylophones{24}\.' has \d+ tokens and the model reads 24"):
        load_predictor(name, labels=["cat", "xylophone" + "s" * 24])


def test_a_text_tower_that_lacks_tensors_is_refused(tmp_path):
    from diffcern.errors import DiffcernError

    clip(tmp_path)
    rewrite(tmp_path, drop="text_projection")
    with pytest.raises(DiffcernError, match=r"lacks 1 tensors \(text_projection\.weight\)"):
        load_predictor(str(tmp_path), labels=LABELS)


@pytest.mark.parametrize("build", [clip, siglip, siglip2, siglip_words])
def test_capitals_make_no_difference(build, tmp_path):
    """All were trained on lower case; the tokenizer of SigLIP 2, Gemma's, knows capitals."""
    build(tmp_path)
    lower, upper = (load_predictor(str(tmp_path), labels=labels) for labels in (["cat", "dog"], ["Cat", "DOG"]))
    assert upper.class_names == ("Cat", "DOG")
    torch.testing.assert_close(lower.model.text, upper.model.text, rtol=0, atol=0)
    assert not torch.allclose(lower.model.text[0], lower.model.text[1], atol=1e-3)


def test_siglip_of_any_ratio_is_refused_by_name(tmp_path):
    from diffcern.errors import DiffcernError

    siglip(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "siglip2", "architectures": None}))
    with pytest.raises(DiffcernError, match=r"NaFlex\): give one of fixed resolution"):
        load_predictor(str(tmp_path), labels=LABELS)
