"""Training of maps: a segmenter, a depth predictor and the priors that read what they answer."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from diffcern.data import load_dataset, subset
from diffcern.data.base import VOID
from diffcern.errors import DiffcernError, UsageError
from diffcern.given import parse_size
from diffcern.jobs.train import named_data
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.tasks import Depth, Segmentation
from diffcern.train import images as table_module
from diffcern.train.augmentations import mirrored
from diffcern.train.images import read_table
from diffcern.train.predictor import PredictorRecipe, train_predictor
from diffcern.train.prior import PriorRecipe, train_prior
from diffcern.train.recipes import Regime
from diffcern.types import Condition

SCENES = subset(load_dataset("embedded:scenes/train"), 24, seed=0)
CPU = torch.device("cpu")
PRIOR = PriorRecipe(image_size=16, width=16, depth=1, heads=2, patch=4, augmentation="flip")
PREDICTOR = PredictorRecipe("small-unet", 32, 8, 1, "flip")


@pytest.mark.slow
@pytest.mark.parametrize("maps", ["segmentation", "depth"])
def test_a_prior_learns_from_maps(maps, tmp_path):
    recipe = dataclasses.replace(PRIOR, maps=maps)
    short = Regime(images=16 * 60, batch_size=16, learning_rate=3e-3)
    _, outcome = train_prior(SCENES, recipe, short, tmp_path / "prior", device=CPU)
    first = train_prior(SCENES, recipe, dataclasses.replace(short, images=16), tmp_path / "one", device=CPU)[1]
    assert outcome.loss < 0.9 * first.loss
    prior = load_prior(str(tmp_path / "prior"))
    assert prior.maps.kind == maps
    assert (tmp_path / "prior" / "samples.png").is_file()
    assert prior.clean_errors.diff().ge(0).all()
    if maps == "depth":
        assert 1 < prior.maps.near < prior.maps.far <= 12
    else:
        assert prior.maps.names == SCENES.mask_names
    told = Condition(spatial=torch.rand(1, *prior.spatial_shape))
    x, t = torch.randn(1, *prior.latent_shape), torch.tensor([500])
    assert not torch.allclose(prior(x, t, told).output, prior(x, t, Condition()).output)  # it reads them


@pytest.mark.slow
def test_a_segmenter_and_a_depth_predictor_learn(tmp_path):
    schedule = Regime(images=8 * 70, batch_size=8, learning_rate=1e-2, ema_decay=0.9)
    recipe = dataclasses.replace(PREDICTOR, task="segmentation")
    train_predictor(SCENES, recipe, schedule, tmp_path / "s", device=CPU)
    segmenter = load_predictor(str(tmp_path / "s"))
    assert segmenter.task == "segmentation"
    sample = SCENES[0]
    with torch.no_grad():
        answer = segmenter(sample.image[None]).argmax(1)[0]
    most = torch.bincount(sample.mask.flatten()).max() / sample.mask.numel()
    assert (answer == sample.mask).float().mean() > most + 0.05
    train_predictor(SCENES, dataclasses.replace(PREDICTOR, task="depth"), schedule, tmp_path / "d", device=CPU)
    depth = load_predictor(str(tmp_path / "d"))
    assert depth.metric
    assert depth.class_names == ()
    with torch.no_grad():
        metres = depth(sample.image[None])[0]
    constant = (sample.depth.log() - sample.depth.log().median()).abs().mean()
    assert (metres.log() - sample.depth.log()).abs().mean() < 0.8 * constant


def test_unknown_pixels_cost_nothing():
    logits, mask = torch.randn(1, 3, 4, 4), torch.full((1, 4, 4), VOID)
    mask[0, 0, 0] = 2
    assert torch.allclose(Segmentation.loss(logits, mask), F.cross_entropy(logits[:, :, 0, 0], torch.tensor([2])))
    depth, metres = torch.zeros(1, 4, 4), torch.full((1, 4, 4), 2.0)
    depth[0, 1, 1] = 1.0
    assert Depth.loss(metres, depth).item() == pytest.approx(0.6931, abs=1e-3)
    assert torch.isfinite(Depth.loss(torch.zeros(1, 4, 4), depth))  # a network may answer 0


def test_images_and_maps_are_mirrored_together():
    images, maps = torch.rand(8, 3, 4, 4), torch.arange(16).view(1, 4, 4).expand(8, 4, 4)
    seen, truth = mirrored(images, maps, True, torch.Generator().manual_seed(0))
    turned = [not torch.equal(a, b) for a, b in zip(seen, images, strict=True)]
    assert 0 < sum(turned) < 8
    for row, was in enumerate(turned):
        assert torch.equal(truth[row], maps[row].flip(-1) if was else maps[row])
    assert torch.equal(mirrored(images, maps, False, torch.Generator())[0], images)


def test_truths_count_towards_memory(monkeypatch):
    """Masks of 64 x 64 bytes each, or twice that for depth, beside images of 16 x 16."""
    images, maps = 3 * 16 * 16, 64 * 64
    monkeypatch.setattr(table_module, "MEMORY_LIMIT", len(SCENES) * (images + maps))
    table = read_table(SCENES, 16, "mask")
    assert (table.images.nbytes, table.truth.nbytes) == (len(SCENES) * images, len(SCENES) * maps)
    assert torch.equal(table.truth[3].long(), SCENES[3].mask)
    with pytest.raises(DiffcernError, match=r"24 images with depths need .* of memory, and training keeps"):
        read_table(SCENES, 16, "depth")
    monkeypatch.setattr(table_module, "MEMORY_LIMIT", len(SCENES) * images - 1)
    with pytest.raises(DiffcernError, match="24 images of 16 x 16 pixels need"):
        read_table(SCENES, 16, "mask")


def test_class_names_are_those_of_what_is_trained(monkeypatch):
    asked = []
    monkeypatch.setattr("diffcern.run.truths.load_dataset", lambda name, **names: asked.append((name, names)))
    named_data("parquet:x", ["sky", "road"], "segmentation")
    named_data("parquet:x", ["in", "out"], "classification")
    named_data("parquet:x", None, "depth")
    assert asked == [
        ("parquet:x", {"mask_names": ["sky", "road"]}),
        ("parquet:x", {"class_names": ["in", "out"]}),
        ("parquet:x", {"class_names": None}),
    ]


def test_mistakes(tmp_path):
    schedule = Regime(images=16, batch_size=16, learning_rate=1e-3)
    digits = subset(load_dataset("embedded:digits/train"), 16, seed=0)
    for recipe, message in (
        (dataclasses.replace(PREDICTOR, task="depth", augmentation="affine"), "maps are trained with --augment flip"),
        (dataclasses.replace(PREDICTOR, task="flow"), "--task is one of"),
        (dataclasses.replace(PREDICTOR, task="segmentation"), "does not name its classes"),
        (dataclasses.replace(PREDICTOR, task="depth", architecture="small-resnet"), "architecture for depth is"),
    ):
        data = SCENES if "architecture" in message else digits
        with pytest.raises(UsageError, match=message):
            train_predictor(data, recipe, schedule, tmp_path / "p", device=CPU)
    with pytest.raises(DiffcernError, match="has no depth; training needs one"):
        train_predictor(digits, dataclasses.replace(PREDICTOR, task="depth"), schedule, tmp_path / "p", device=CPU)
    with pytest.raises(UsageError, match="maps are segmentation or depth"):
        train_prior(SCENES, dataclasses.replace(PRIOR, maps="normals"), schedule, tmp_path / "q", device=CPU)
    assert parse_size("96x128") == (96, 128)
    with pytest.raises(UsageError, match="HEIGHTxWIDTH"):
        parse_size("96,128")
