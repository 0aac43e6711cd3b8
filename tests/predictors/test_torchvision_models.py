from pathlib import Path

import pytest
import torch
from torchvision import models

from diffcern.errors import DiffcernError, UsageError
from diffcern.labels import imagenet_labels
from diffcern.predictors import load_predictor

from .conftest import LEVELS, check_adaptable, levels, loud, tensor

NAME = "shufflenet_v2_x0_5"


def cached(name, tag, **options):
    """Random weights in torch's cache, under the name of the published ones."""
    weights = models.get_model_weights(name)[tag]
    classes = len(weights.meta["categories"])
    model = loud(models.get_model(name, weights=None, num_classes=classes, **options))
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    file.parent.mkdir(parents=True)
    torch.save(model.state_dict(), file)
    return weights, model.eval(), file


def test_a_classifier_sees_what_torchvision_shows_it(photo):
    weights, model, _ = cached(NAME, "IMAGENET1K_V1")
    predictor = load_predictor(f"torchvision:{NAME}/IMAGENET1K_V1")
    expected = weights.transforms()(photo)[None]
    assert levels(predictor, photo, expected) < LEVELS
    torch.testing.assert_close(predictor(tensor(photo)), model(predictor.prepare(tensor(photo))))
    assert (predictor.class_names, predictor.class_ids) == imagenet_labels()
    check_adaptable(predictor)


@pytest.mark.parametrize(
    "weights", [models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1, models.ResNet50_Weights.IMAGENET1K_V2]
)
def test_every_transform_is_read(weights, photo):
    """Bicubic without a crop, and bilinear with an odd one, from weights too large for a test."""
    from diffcern.predictors.torchvision_models import _wrap

    predictor = _wrap(torch.nn.Identity(), weights, str(weights))
    assert levels(predictor, photo, weights.transforms()(photo)[None]) < LEVELS


def test_a_segmenter_answers_in_the_images_size(photo):
    name = "lraspp_mobilenet_v3_large"
    weights, model, _ = cached(name, "COCO_WITH_VOC_LABELS_V1", weights_backbone=None)
    predictor = load_predictor(f"torchvision:{name}/COCO_WITH_VOC_LABELS_V1")
    assert levels(predictor, photo, weights.transforms()(photo)[None]) < LEVELS
    small = photo.resize((64, 48))
    assert predictor(tensor(small)).shape == (1, 21, 48, 64)
    assert (predictor.task, predictor.class_names[15]) == ("segmentation", "person")
    maps = model(predictor.prepare(tensor(small)))["out"]
    expected = torch.nn.functional.interpolate(maps, (48, 64), mode="bilinear")
    torch.testing.assert_close(predictor(tensor(small)), expected)


def test_names_that_torchvision_does_not_know():
    with pytest.raises(UsageError, match=r"'resnet51'.*resnet50"):
        load_predictor("torchvision:resnet51/IMAGENET1K_V1")
    for tag in ("", "/IMAGENET1K_V3"):
        with pytest.raises(UsageError, match=r"weights of torchvision:resnet50.*IMAGENET1K_V1, IMAGENET1K_V2"):
            load_predictor(f"torchvision:resnet50{tag}")


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(DiffcernError, match=r"shufflenetv2.*no route to host.*machine with a network"):
        load_predictor(f"torchvision:{NAME}/IMAGENET1K_V1")


class Harmful:
    def __reduce__(self):
        return print, ("this ran",)


def test_pickled_code_does_not_run(capsys):
    _, _, file = cached(NAME, "IMAGENET1K_V1")
    torch.save({"conv1.0.weight": Harmful()}, file)
    with pytest.raises(DiffcernError, match="cannot load the weights"):
        load_predictor(f"torchvision:{NAME}/IMAGENET1K_V1")
    assert "this ran" not in capsys.readouterr().out
