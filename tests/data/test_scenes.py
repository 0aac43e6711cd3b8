"""The embedded scenes: the same in any order, and image, mask and depth tell of the same things."""

from __future__ import annotations

import colorsys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffcern.data import Sample, Scenes, load_dataset, subset
from diffcern.data.base import Subset
from diffcern.data.digits import Digits
from diffcern.data.scenes import scenes
from diffcern.data.scenes.geometry import FAR, Scene, fits
from diffcern.data.scenes.layout import COLOURS, Dice, layout
from diffcern.data.scenes.render import render, trace
from diffcern.data.scenes.renditions import poster
from diffcern.data.scenes.shapes import BAND, CLASSES, CONE, CUBE, CYLINDER, HOLE, PYRAMID, RING, SHAPES
from diffcern.errors import UsageError

TEST = scenes("test")
FIRST = [TEST.scene(index) for index in range(40)]


def same(a: Sample, b: Sample) -> bool:
    assert a.mask is not None
    assert a.depth is not None
    assert b.mask is not None
    assert b.depth is not None
    return torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask) and torch.equal(a.depth, b.depth)


def bare(scene: Scene) -> Scene:
    return replace(scene, things=())


# --- the data set ------------------------------------------------------------------------------------------


def test_splits_by_name() -> None:
    for name, split, count in [
        ("scenes", "test", 1000),
        ("scenes/test", "test", 1000),
        ("scenes/validation", "validation", 500),
        ("scenes/train", "train", 20_000),
    ]:
        dataset = load_dataset(f"embedded:{name}")
        assert isinstance(dataset, Scenes)
        assert (dataset.name, len(dataset), dataset.ids[12]) == ("scenes", count, f"scenes-{split}-000012")
        assert dataset.class_names == ("sphere", "cube", "cylinder", "cone", "pyramid", "ring")
        assert dataset.mask_names == ("background", "ground", *dataset.class_names)
    with pytest.raises(UsageError, match="scenes/train"):
        load_dataset("embedded:scenes/training")
    with pytest.raises(UsageError, match="validation"):
        scenes("val")
    with pytest.raises(UsageError, match="at least 16 pixels"):
        scenes("test", side=8)
    with pytest.raises(IndexError):
        TEST[1000]


def test_a_sample_has_mask_and_depth() -> None:
    for index in (0, -1):
        sample = TEST[index]
        assert sample.mask is not None
        assert sample.depth is not None
        assert sample.id == TEST.ids[index]
        assert sample.target == TEST.targets[index]
        assert sample.image.shape == (3, 64, 64)
        assert sample.image.dtype == torch.float32
        assert sample.mask.shape == (64, 64)
        assert sample.mask.dtype == torch.int64
        assert sample.depth.shape == (64, 64)
        assert sample.depth.dtype == torch.float32
    small = load_dataset("embedded:scenes", max_side=32)[3]
    assert small.image.shape == (3, 32, 32)
    assert small.mask is not None
    assert small.mask.shape == (32, 32)


def test_every_six_successive_scenes_show_all_six_classes() -> None:
    for split in ("train", "validation", "test"):
        targets = scenes(split).targets
        assert all(sorted(targets[k : k + 6]) == list(range(6)) for k in range(0, len(targets) - 5, 6))
    assert len({tuple(TEST.targets[k : k + 6]) for k in range(0, 600, 6)}) > 50, "always in the same order"
    assert all(TEST.targets[k] == CLASSES.index(scene.things[0].shape) for k, scene in enumerate(FIRST))


def test_a_scene_is_the_same_in_any_order_and_batch() -> None:
    images, masks, depths = TEST.batch([7, 3, 5])
    for row, index in [(1, 3), (2, 5), (0, 7)]:
        assert same(Sample("", images[row], 0, masks[row], depths[row]), scenes("test")[index])
    assert not torch.equal(TEST[3].image, scenes("validation")[3].image)
    assert not torch.equal(TEST[3].image, scenes("train")[3].image)


def test_a_subset_keeps_masks_and_renditions() -> None:
    chosen = subset(TEST, 12, seed=1)
    assert isinstance(chosen, Subset)
    assert sorted(chosen.targets) == sorted([*range(6)] * 2)
    assert chosen.mask_names == TEST.mask_names
    assert chosen.renditions == TEST.renditions
    assert same(chosen.rendition(4, "poster", 3), TEST.rendition(chosen.indices[4], "poster", 3))
    digits = Subset(Digits(rows=()), [])
    assert digits.mask_names == ()
    assert digits.renditions == ()
    with pytest.raises(UsageError, match="digits has no renditions"):
        digits.rendition(0, "poster", 1)


# --- what is in a scene ------------------------------------------------------------------------------------


def test_things_fit_in_the_scene_and_no_two_share_a_name() -> None:
    counts = []
    for index in range(300):
        scene = layout("train", index)
        counts.append(len(scene.things))
        assert fits(scene.camera, scene.things)
        assert len({(thing.shape, thing.colour) for thing in scene.things}) == len(scene.things)
    assert {1, 2, 3, 4} == set(counts)


def test_the_main_thing_stands_out() -> None:
    for scene in FIRST:
        with np.errstate(all="ignore"):
            found = trace(scene, 64)
        seen = found.labels == 2
        assert seen.sum() >= 0.75 * found.alone[0]
        assert np.ptp(np.nonzero(seen)[0]) > 0.12 * 64
        # 6 % of the picture: 60 pixels at a side of 32
        assert seen.sum() > 0.06 * 64 * 64


def test_the_main_thing_has_the_colour_of_its_name() -> None:
    """By hue, which light of nearly no colour leaves alone, and by saturation for white."""
    for index, scene in enumerate(FIRST):
        sample, main = TEST[index], scene.things[0]
        if sum(thing.shape == main.shape for thing in scene.things) > 1:
            continue
        assert sample.mask is not None
        pixels = sample.image[:, sample.mask == 2 + CLASSES.index(main.shape)].median(dim=1).values.tolist()
        hue, saturation, _ = colorsys.rgb_to_hsv(*pixels)
        coloured = {name: values[0] for name, values in COLOURS.items() if name != "white"}
        nearest = min(coloured, key=lambda name: abs((hue * 360 - coloured[name] + 180) % 360 - 180))
        assert main.colour == ("white" if saturation < 0.2 else nearest), scene.id


# --- image, mask and depth ---------------------------------------------------------------------------------


def test_things_stand_in_front_of_the_ground() -> None:
    shadows = 0
    for scene in FIRST[:20]:
        image, mask, depth = render(scene, 64)
        empty_image, empty_mask, empty_depth = render(bare(scene), 64)
        assert image.min() >= 0
        assert image.max() <= 1
        assert depth.isfinite().all()
        assert depth.min() > 1
        assert depth.max() == FAR
        assert set(empty_mask.unique().tolist()) == {0, 1}
        thing = mask >= 2
        assert torch.equal(mask[~thing], empty_mask[~thing])
        assert torch.equal(depth[~thing], empty_depth[~thing])
        assert (depth[thing] < empty_depth[thing]).all()
        assert set(mask[thing].unique().tolist()) == {2 + CLASSES.index(t.shape) for t in scene.things}
        # a shadow darkens ground and nothing else; averaging over a pixel's four rays blurs outlines by a pixel
        around = torch.nn.functional.max_pool2d(thing[None].float(), 3, 1, 1)[0] > 0
        change = (image - empty_image)[:, ~around]
        assert change.max() <= 0
        shadows += change.min().item() < -0.02
    assert shadows > 15, "a shadow is seldom hidden by what throws it"


def test_the_ground_recedes() -> None:
    """Depth falls from the horizon to the bottom row; at the horizon it reaches the backdrop."""
    for scene in FIRST[:5]:
        _, mask, depth = render(bare(scene), 64)
        column = depth[:, 0][mask[:, 0] == 1]
        assert (column.diff() < 0).all()
        assert column[0] > 0.85 * FAR
        assert column[-1] < 0.4 * FAR
        assert (depth == depth[:, :1]).all(), "depth is along the camera's axis, which has no sideways tilt"
        assert (depth[mask == 0] == FAR).all()


def test_the_nearer_of_two_things_hides_the_other() -> None:
    scene = FIRST[0]
    here = replace(scene.things[0], x=0.0, z=5.0, size=1.0, shape="cube")
    there = replace(here, z=6.5, size=2.0, shape="ring", yaw=0.0)
    for things in ((here, there), (there, here)):
        _, mask, _ = render(replace(scene, things=things), 64)
        with np.errstate(all="ignore"):
            alone = trace(replace(scene, things=(here,)), 64).alone[0]
        cube = (mask == 2 + CLASSES.index("cube")).sum().item()
        assert abs(cube - alone) < 0.1 * alone  # one ray per pixel against the majority of four
        assert (mask == 2 + CLASSES.index("ring")).any()


INSIDE: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "sphere": lambda x, y, z: x**2 + (y - 0.5) ** 2 + z**2 < 0.25,
    "cube": lambda x, y, z: (abs(x) < CUBE) & (abs(z) < CUBE) & (y > 0) & (y < 2 * CUBE),
    "cylinder": lambda x, y, z: (x**2 + z**2 < CYLINDER**2) & (y > 0) & (y < 1),
    "cone": lambda x, y, z: (np.hypot(x, z) < CONE * (1 - y)) & (y > 0),
    "pyramid": lambda x, y, z: (np.maximum(abs(x), abs(z)) < PYRAMID * (1 - y)) & (y > 0),
    "ring": lambda x, y, z: (abs(np.hypot(x, y - 0.5) - (RING + HOLE) / 2) < (RING - HOLE) / 2) & (abs(z) < BAND),
}


@pytest.mark.parametrize("shape", CLASSES)
def test_rays_enter_a_shape_where_they_first_get_inside(shape: str) -> None:
    """Against walking along each ray in small steps; downwards as the camera's rays, upwards as those to the light."""
    rng = np.random.default_rng(0)
    eye = rng.uniform([-2, 0, -4], [2, 2.5, -2], (400, 3)).T.astype(np.float32)
    aim = rng.uniform([-0.6, 0, -0.5], [0.6, 1.6, 0.5], (400, 3)).T.astype(np.float32) - eye
    with np.errstate(all="ignore"):
        hit = SHAPES[shape].hit(tuple(eye), tuple(aim))
    step = 1e-3
    walk = np.arange(0, 2, step)
    inside = INSIDE[shape](*(eye[:, :, None] + walk * aim[:, :, None]))
    walked = np.where(inside.any(1), walk[inside.argmax(1)], np.inf)
    agree = np.isclose(hit, walked, rtol=0, atol=2 * step)  # infinite where both miss
    fair = (inside.sum(1) == 0) | (inside.sum(1) >= 10)  # steps can miss a corner
    assert agree[fair].mean() > 0.99
    assert 0.1 < np.isfinite(hit).mean() < 0.95


@pytest.mark.parametrize("shape", CLASSES)
def test_normals_stand_on_the_surface(shape: str) -> None:
    """A step along the normal leads out of the shape, a step against it leads in."""
    rng = np.random.default_rng(1)
    eye = rng.uniform([-2, 0.6, -4], [2, 2.5, -2], (300, 3)).T.astype(np.float32)
    aim = rng.uniform([-0.4, 0.1, -0.4], [0.4, 0.9, 0.4], (300, 3)).T.astype(np.float32) - eye
    with np.errstate(all="ignore"):
        hit = SHAPES[shape].hit(tuple(eye), tuple(aim))
    points = (eye + hit * aim)[:, np.isfinite(hit)]
    normals = np.stack(SHAPES[shape].normal(tuple(points)))
    np.testing.assert_allclose((normals**2).sum(0), 1, atol=1e-3)  # float32 points
    outwards, inwards = points + 0.01 * normals, points - 0.01 * normals
    # all but those within a hundredth of an edge
    assert (~INSIDE[shape](*outwards)).mean() > 0.97
    assert INSIDE[shape](*inwards).mean() > 0.9


# --- renditions --------------------------------------------------------------------------------------------


def test_renditions_draw_the_same_scene_otherwise() -> None:
    assert TEST.renditions == ("textures", "light", "drawing", "poster")
    for name in TEST.renditions:
        change = np.zeros(5)
        for index in range(6):
            plain = TEST[index]
            for severity in range(1, 6):
                drawn = TEST.rendition(index, name, severity)
                assert drawn.mask is not None
                assert plain.mask is not None
                assert drawn.depth is not None
                assert (drawn.id, drawn.target) == (plain.id, plain.target)
                assert torch.equal(drawn.mask, plain.mask)
                assert plain.depth is not None
                assert torch.equal(drawn.depth, plain.depth)
                assert drawn.image.dtype == torch.float32
                assert drawn.image.min() >= 0
                assert drawn.image.max() <= 1
                change[severity - 1] += (drawn.image - plain.image).abs().mean().item() / 6
        assert change[0] > 0.005, name
        assert (np.diff(change) > 0).all(), f"{name}: {change}"
    assert same(TEST.rendition(3, "light", 4), scenes("test").rendition(3, "light", 4))


def test_a_drawing_has_no_colour_and_a_poster_few() -> None:
    drawing = TEST.rendition(0, "drawing", 5).image
    assert (drawing.max(0).values - drawing.min(0).values).max() < 0.1
    assert 0.02 < (drawing.mean(0) < 0.6).float().mean() < 0.3, "lines"
    with np.errstate(all="ignore"):
        found = trace(FIRST[0], 128)
        for severity in range(1, 6):
            page = poster(FIRST[0], found, severity, Dice(torch.Generator()))
            levels = np.unique(page[page != np.float32(0.05)])  # without the outlines
            assert len(levels) <= 7 - severity
            np.testing.assert_allclose(levels * (6 - severity), np.round(levels * (6 - severity)), atol=1e-5)


def test_errors_of_renditions() -> None:
    with pytest.raises(UsageError, match="'drawing'"):
        TEST.rendition(0, "drawings", 1)
    with pytest.raises(UsageError, match="severity of light is 1, 2, 3, 4 or 5, not 0"):
        TEST.rendition(0, "light", 0)


def test_scenes_are_fast() -> None:
    """About 3 ms each at 64 x 64 on one slow core that has nothing else to do; ten times that is too slow."""
    TEST.batch(range(4))
    start = time.process_time()
    TEST.batch(range(50))
    assert time.process_time() - start < 50 * 0.03
