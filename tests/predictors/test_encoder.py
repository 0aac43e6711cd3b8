"""Features of every kind of network."""

import pytest
import timm
import torch
import transformers
from timm.models import save_for_hf

from diffcern.errors import UsageError
from diffcern.predictors import load_predictor
from diffcern.predictors.encoder import Encoder, load_encoder

from . import checkpoints
from .conftest import loud

IMAGES = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))


def test_of_a_classifier_what_its_last_layer_is_given():
    encoder = load_encoder("embedded:digits")
    features, predictor = encoder(IMAGES), load_predictor("embedded:digits")
    head = [module for module in predictor.modules() if isinstance(module, torch.nn.Linear)][-1]
    assert torch.allclose(head(features), predictor(IMAGES), atol=1e-5)
    assert not any(module._forward_pre_hooks for module in encoder.modules())


def test_of_a_model_of_timm_with_and_without_a_classifier(tmp_path):
    name = "test_vit.r160_in1k"
    model = loud(timm.create_model(name)).eval()
    for classes, folder in ((None, "head"), (0, "bare")):
        if classes == 0:
            model.reset_classifier(0)
        save_for_hf(
            model, str(tmp_path / folder), model_config={"num_classes": model.num_classes}, safe_serialization=True
        )
        encoder = load_encoder(f"timm:local-dir:{tmp_path / folder}")
        expected = model.forward_head(model.forward_features(encoder.predictor.prepare(IMAGES)), pre_logits=True)
        assert torch.allclose(encoder(IMAGES), expected, atol=1e-5)


def test_of_transformers_models(tmp_path):
    model = checkpoints.classifier(tmp_path / "classifier")
    encoder = load_encoder(str(tmp_path / "classifier"))
    hidden = model.vit(encoder.predictor.prepare(IMAGES)).last_hidden_state[:, 0]
    assert torch.allclose(encoder(IMAGES), hidden, atol=1e-5)
    config = transformers.Dinov2Config(**checkpoints.TOWER)
    processor = transformers.BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    backbone = checkpoints.save(tmp_path / "dino", transformers.Dinov2Model(config), processor)
    encoder = load_encoder(str(tmp_path / "dino"))
    pooled = backbone(encoder.predictor.prepare(IMAGES)).pooler_output
    assert torch.allclose(encoder(IMAGES), pooled, atol=1e-5)


def test_of_clip_the_image_tower():
    """By name what the tower pools; of a predictor that is at hand, what is compared with texts."""
    labels = ["a red ring", "a purple cylinder"]
    clip = load_predictor("embedded:scenes-clip", labels=labels, templates=["{}"])
    pixels = clip.prepare(IMAGES)
    assert torch.allclose(load_encoder("embedded:scenes-clip")(IMAGES), clip.model.tower(pixels).pooler_output)
    assert torch.allclose(Encoder(clip)(IMAGES), clip.model.features(pixels))


def test_a_width_that_is_not_the_number_of_features(tmp_path):
    """A layer before the classifier of MobileNet v3 makes other features of those."""
    model = loud(timm.create_model("mobilenetv3_small_050")).eval()
    save_for_hf(model, str(tmp_path), model_config={"num_classes": 1000}, safe_serialization=True)
    features = load_encoder(f"timm:local-dir:{tmp_path}")(IMAGES)
    assert features.shape == (2, model.head_hidden_size)


def test_a_name_of_torchvision_is_no_folder(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{damaged")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="torchvision"):
        load_encoder("torchvision:no_such_model/WEIGHTS")
