"""Corruptions: the manners that all share, closed forms, and parity with the published maths by other means.

The other means are SciPy, scikit-image, Pillow and plain loops.
"""

from __future__ import annotations

import math
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.color import hsv2rgb, rgb2hsv
from skimage.filters import gaussian
from torch import Tensor

from diffcern.data.corruptions import COMMON, CORRUPTIONS, EXTRA, corrupt
from diffcern.data.corruptions.blur import displaced, magnify, smear
from diffcern.data.corruptions.texture import ice, plasma
from diffcern.data.corruptions.weather import MUD, gloss
from diffcern.errors import DiffcernError, UsageError
from diffcern.rng import generator

DETERMINISTIC = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
DETERMINISTIC |= {"gaussian_blur", "saturate"}
NOISE = {name for name in CORRUPTIONS if name.endswith("_noise")}
SEVERITIES = range(1, 6)


@pytest.fixture(autouse=True)
def _threads() -> None:
    """In place of the suite's own: for such small images a second thread only waits."""
    torch.set_num_threads(1)


def natural(height: int, width: int) -> Tensor:
    """A colour image with the 1 / f spectrum of photographs, mean 0.5, standard deviation about 0.2."""
    draws = generator(0, "natural", height, width)
    white = torch.randn((3, height, width), generator=draws) + torch.randn((1, height, width), generator=draws)
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    image = torch.fft.irfft2(torch.fft.rfft2(white) / frequency.clamp(min=1 / max(height, width)), s=(height, width))
    return (0.5 + 0.2 * (image - image.mean()) / image.std()).clamp(0, 1)


def flat(value: float, height: int = 32, width: int = 32) -> Tensor:
    return torch.full((3, height, width), float(value))


def hwc(image: Tensor) -> NDArray[np.float64]:
    return image.permute(1, 2, 0).numpy().astype(np.float64)


def apply(image: Tensor, name: str, severity: int, key: int = 0, size: int | None = None) -> Tensor:
    return corrupt(image, name, severity, generator(key, name), size)


def change(image: Tensor, name: str, severity: int, keys: int = 1) -> float:
    """Mean absolute change, averaged over some keys."""
    return sum((apply(image, name, severity, key) - image).abs().mean().item() for key in range(keys)) / keys


# Names and tables


def test_names_are_the_published_ones_in_the_published_order() -> None:
    assert list(COMMON) == [
        *("gaussian_noise", "shot_noise", "impulse_noise"),
        *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        *("snow", "frost", "fog", "brightness"),
        *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    ]
    assert list(EXTRA) == ["speckle_noise", "gaussian_blur", "spatter", "saturate"]
    assert tuple(CORRUPTIONS) == COMMON + EXTRA


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_table_has_three_sizes_and_five_severities(name: str) -> None:
    table = CORRUPTIONS[name].parameters
    assert list(table) == [32, 64, 224]
    assert all(len(rows) == 5 and len(set(rows)) == 5 for rows in table.values())


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (48, 48, 32),
        (49, 49, 64),
        (112, 112, 64),
        (113, 113, 224),
        (32, 300, 32),
        (300, 64, 64),
        (224, 300, 224),
    ],
)
def test_the_shorter_side_picks_the_table(height: int, width: int, size: int) -> None:
    image = natural(height, width)
    factor = {32: 0.75, 64: 0.4, 224: 0.4}[size]  # contrast does not tell 64 from 224, gaussian noise does
    assert apply(image, "contrast", 1).std((1, 2)).allclose(factor * image.std((1, 2)), rtol=1e-4)
    std = (apply(flat(0.5, height, width), "gaussian_noise", 2) - 0.5).std().item()
    assert std == pytest.approx({32: 0.06, 64: 0.08, 224: 0.12}[size], rel=0.05)


def test_the_table_can_be_chosen() -> None:
    image = natural(32, 32)
    assert torch.equal(apply(image, "brightness", 5, size=32), apply(image, "brightness", 5))
    assert not torch.equal(apply(image, "brightness", 5, size=224), apply(image, "brightness", 5))


# Manners, for every corruption


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_keeps_shape_type_and_range_and_changes_a_copy(name: str, severity: int) -> None:
    image = natural(32, 32)
    before = image.clone()
    result = apply(image, name, severity)
    assert result.shape == image.shape
    assert result.dtype == torch.float32
    assert result.isfinite().all()
    assert 0 <= result.min() <= result.max() <= 1
    assert torch.equal(image, before)
    assert not torch.equal(result, image)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 41), (40, 28), (64, 50)])
def test_any_size_and_any_table(name: str, height: int, width: int) -> None:
    image = natural(height, width)
    for size in (32, 64, 224):
        for severity in (1, 5):
            result = apply(image, name, severity, size=size)
            assert result.shape == image.shape
            assert result.isfinite().all()


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_images(name: str, value: float) -> None:
    for severity in SEVERITIES:
        assert apply(flat(value), name, severity).isfinite().all()


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in NOISE | {"frost", "spatter", "saturate"}])
def test_grey_stays_grey(name: str) -> None:
    """But noise is per channel, ice, water and mud have a colour, and saturation tints grey, as published."""
    image = natural(32, 32).mean(0, keepdim=True).repeat(3, 1, 1)
    for severity in SEVERITIES:
        result = apply(image, name, severity)
        assert (result - result.mean(0)).abs().max() < 1e-5


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_generator_alone_decides(name: str) -> None:
    image = natural(32, 32)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = apply(image, name, 3)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert torch.equal(apply(image, name, 3), first)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()  # noqa: NPY002
    assert torch.equal(apply(image, name, 3, key=1), first) == (name in DETERMINISTIC)


def test_layout_and_gradients_of_the_input_do_not_matter() -> None:
    image = natural(32, 32)
    strided = image.permute(1, 2, 0).contiguous().permute(2, 0, 1).requires_grad_()
    for name in CORRUPTIONS:
        torch.testing.assert_close(apply(strided, name, 2), apply(image, name, 2), atol=1e-6, rtol=0)


def test_quantize_rounds_to_eight_bits() -> None:
    image = natural(32, 32)
    exact = corrupt(image, "gaussian_blur", 3, generator(0))
    rounded = corrupt(image, "gaussian_blur", 3, generator(0), quantize=True)
    levels = rounded * 255
    assert (levels - levels.round()).abs().max() < 1e-4
    assert 0 < (rounded - exact).abs().max() <= 0.5 / 255 + 1e-6


# Not monotone by the published parameters: glass blur lowers sigma from 3 to 4 and adds a pass; elastic
# trades the affine map for local shifts; frost darkens the image as it adds ice; spatter turns from water to
# mud; saturate first removes colour, then adds it.
UNEVEN = {"glass_blur", "elastic_transform", "frost", "spatter", "saturate"}


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in UNEVEN])
def test_severity_grows(name: str) -> None:
    image = natural(32, 32)
    changes = [change(image, name, severity, keys=1 if name in DETERMINISTIC else 12) for severity in SEVERITIES]
    # 3 %: motion blur only gets a longer, almost weightless tail from 3 to 4, and its random angles differ.
    assert all(after > 0.97 * before for before, after in pairwise(changes)), changes
    assert changes[4] > 1.3 * changes[0]


def test_frost_hides_more_with_severity() -> None:
    image = natural(32, 32)

    def likeness(severity: int) -> float:
        pairs = [torch.stack([apply(image, "frost", severity, key).flatten(), image.flatten()]) for key in range(8)]
        return sum(torch.corrcoef(pair)[0, 1].item() for pair in pairs)

    likenesses = [likeness(severity) for severity in SEVERITIES]
    assert likenesses == sorted(likenesses, reverse=True)


# Errors


def test_errors_list_what_exists() -> None:
    image = natural(32, 32)
    with pytest.raises(UsageError, match=r"unknown corruption 'gausian_noise'.*'gaussian_noise'.*zoom_blur"):
        corrupt(image, "gausian_noise", 1, generator(0))
    for severity in (0, 6):
        with pytest.raises(UsageError, match=rf"severity {severity} of fog.*1, 2, 3, 4, 5"):
            corrupt(image, "fog", severity, generator(0))
    with pytest.raises(UsageError, match=r"size 100.*32, 64, 224"):
        corrupt(image, "fog", 1, generator(0), size=100)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(2, 3, 32, 32), r"\[2, 3, 32, 32\]"),
        (torch.rand(1, 32, 32), r"\[1, 32, 32\]"),
        (torch.rand(3, 7, 32), r"\[3, 7, 32\]"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), "uint8"),
        (torch.rand(3, 32, 32).double(), "float64"),
        (torch.full((3, 32, 32), 255.0), "from 255 to 255"),
        (torch.full((3, 32, 32), -0.5), "from -0.5"),
        (torch.full((3, 32, 32), math.nan), "nan"),
    ],
)
def test_unusable_images_are_refused(image: Tensor, message: str) -> None:
    with pytest.raises(DiffcernError, match=message):
        corrupt(image, "fog", 1, generator(0))


# Noise: moments. About 50,000 values at 128 x 128, so a standard deviation is known to 0.3 %.


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_published_strength(severity: int) -> None:
    image = flat(0.5, 128, 128)

    def moments(name: str) -> tuple[float, float]:
        result = apply(image, name, severity, size=32)
        return result.mean().item(), result.std().item()

    assert moments("gaussian_noise") == pytest.approx((0.5, [0.04, 0.06, 0.08, 0.09, 0.1][severity - 1]), rel=0.02)
    assert moments("speckle_noise") == pytest.approx((0.5, [0.03, 0.05, 0.06, 0.08, 0.1][severity - 1]), rel=0.02)
    photons = [500, 250, 100, 75, 50][severity - 1]
    assert moments("shot_noise") == pytest.approx((0.5, math.sqrt(0.5 / photons)), rel=0.02)


def test_shot_noise_counts_photons() -> None:
    counts = apply(natural(32, 32), "shot_noise", 5, size=224) * 3
    assert (counts - counts.round()).abs().max() < 1e-5


@pytest.mark.parametrize(("severity", "fraction"), enumerate([0.03, 0.06, 0.09, 0.17, 0.27], start=1))
def test_impulse_noise_replaces_a_fraction(severity: int, fraction: float) -> None:
    result = apply(flat(0.5, 224, 224), "impulse_noise", severity)
    for value in (
        0,
        1,
    ):  # 150,000 values: three standard deviations are 3 % of the smallest expectation, 7 % here
        assert (result == value).float().mean().item() == pytest.approx(fraction / 2, rel=0.07)
    assert ((result == 0) | (result == 0.5) | (result == 1)).all()


# Blurs


@pytest.mark.parametrize(("size", "severity"), [(32, 1), (32, 3), (64, 4), (224, 2)])
def test_gaussian_blur_is_that_of_scikit_image(size: int, severity: int) -> None:
    image = natural(40, 56)
    sigma = CORRUPTIONS["gaussian_blur"].parameters[size][severity - 1][0]
    expected = gaussian(hwc(image), sigma, channel_axis=-1)
    assert np.abs(hwc(apply(image, "gaussian_blur", severity, size=size)) - expected).max() < 2e-6


def test_defocus_spreads_a_point_over_a_disk() -> None:
    image = flat(0, 64, 64)
    image[:, 32, 32] = 1
    result = apply(image, "defocus_blur", 1, size=224)[0]  # radius 3, hardly softened
    y, x = torch.meshgrid(torch.arange(64) - 32, torch.arange(64) - 32, indexing="ij")
    disk = (x**2 + y**2 <= 9).float()
    assert disk.sum() == 29
    assert (result - disk / 29).abs().max() < 1e-6


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_glass_displaces_like_the_published_loop(reach: int) -> None:
    height, width = 20, 26
    shifts = torch.randint(-reach, reach, (2, height, width), generator=generator(reach))
    pixels = np.arange(height * width).reshape(height, width)
    for row in range(height - reach, reach, -1):  # plain copies, which is what the published exchange amounts to
        for column in range(width - reach, reach, -1):
            down, right = shifts[:, row, column].tolist()
            pixels[row, column] = pixels[row + down, column + right]
    assert displaced(shifts, reach).tolist() == pixels.flatten().tolist()


def test_glass_blur_moves_existing_pixels() -> None:
    image = natural(32, 32)  # severity 1: sigma 0.05 is no blur at all
    known = {tuple(pixel) for pixel in image.flatten(1).T.tolist()}
    result = apply(image, "glass_blur", 1)
    assert {tuple(pixel) for pixel in result.flatten(1).T.tolist()} <= known
    assert torch.equal(result[:, :2], image[:, :2])
    assert (result != image).any(0).float().mean() > 0.5


@pytest.mark.parametrize("degrees", [-120.0, -90.0, -45.0, 0.0, 30.0])
def test_smear_is_imagemagicks_sum_of_shifted_images(degrees: float) -> None:
    image = hwc(natural(20, 30)).astype(np.float32)
    radius, sigma = 6, 2.5
    weights = [math.exp(-(tap**2) / (2 * sigma**2)) for tap in range(2 * radius + 1)]
    padded = np.pad(image, ((20, 20), (20, 20), (0, 0)), mode="edge")
    expected = np.zeros_like(image)
    for tap, weight in enumerate(weights):
        dx = math.ceil(tap * math.cos(math.radians(degrees)) - 0.5)
        dy = math.ceil(tap * math.sin(math.radians(degrees)) - 0.5)
        expected += weight / sum(weights) * padded[20 + dy : 40 + dy, 20 + dx : 50 + dx]
    assert np.abs(smear(image, radius, sigma, degrees) - expected).max() < 1e-5


def test_motion_blur_smears_to_one_side_within_45_degrees() -> None:
    image = flat(0, 65, 65)
    image[:, 32, 32] = 1
    for key in range(6):
        rows, columns = apply(image, "motion_blur", 5, key, size=32)[0].gt(1e-6).nonzero().T
        assert columns.max() == 32  # each pixel looks right, so that a point spreads to the left
        assert columns.min() < 32 - 6  # more than two sigmas of 2.5, at 45 degrees too
        assert ((rows - 32).abs() <= 32 - columns + 1).all()


@pytest.mark.parametrize("zoom", [1.0, 1.05, 1.3, 2.25, 4.5])
def test_magnify_is_scipys_zoom_of_the_middle(zoom: float) -> None:
    image = natural(32, 32)
    crop = math.ceil(32 / zoom)
    top = (32 - crop) // 2
    enlarged = ndimage.zoom(hwc(image)[top : top + crop, top : top + crop], (zoom, zoom, 1), order=1)
    trim = (len(enlarged) - 32) // 2
    assert np.abs(hwc(magnify(image, zoom)) - enlarged[trim : trim + 32, trim : trim + 32]).max() < 1e-5


def test_zoom_blur_averages_the_image_and_its_magnifications() -> None:
    image = natural(32, 32)
    zooms = [1, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06]  # the stop 1.06 is among them, by rounding, as published
    expected = (image + sum(magnify(image, zoom) for zoom in zooms)) / 8
    torch.testing.assert_close(apply(image, "zoom_blur", 1), expected, atol=1e-6, rtol=0)


# Weather


@pytest.mark.parametrize("severity", SEVERITIES)
def test_snow_on_black(severity: int) -> None:
    """Black becomes (1 - keep) / 2 between the flakes, and the two layers are each other's half turn."""
    keep = [0.95, 0.9, 0.9, 0.85, 0.8][severity - 1]
    result = apply(flat(0), "snow", severity)
    assert result.min().item() >= (1 - keep) / 2 - 1e-6
    if severity <= 3:  # later the flakes leave no gap
        assert result.min().item() == pytest.approx((1 - keep) / 2, abs=1e-6)
    torch.testing.assert_close(result, result.flip(1, 2), atol=1e-5, rtol=0)
    assert (result > 0.1).any()


def test_snow_falls() -> None:
    """Flakes are streaks nearer to the vertical, so neighbours in a column are more alike than in a row."""
    results = torch.stack([apply(flat(0, 64, 64), "snow", 5, key, size=32) for key in range(8)])
    assert results.diff(dim=-2).abs().mean() < 0.7 * results.diff(dim=-1).abs().mean()


def test_frost_adds_ice_with_the_published_weights() -> None:
    for severity, (image_weight, frost_weight) in enumerate(
        [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)], start=1
    ):
        image = 0.4 * natural(32, 32)
        expected = image_weight * image + frost_weight * ice(32, 32, 0.2, generator(0, "frost"))
        torch.testing.assert_close(apply(image, "frost", severity), expected.clamp(0, 1))


@pytest.mark.parametrize(("side", "reduction"), [(32, 0.2), (64, 0.3), (224, 1)])
def test_ice_is_bluish_and_uneven(side: int, reduction: float) -> None:
    pane = torch.stack([ice(side, side, reduction, generator(key)) for key in range(4)])
    assert (pane.diff(dim=1) > 0).all()  # red < green < blue
    assert 0.4 < pane.mean() < 0.6
    assert pane.std() > 0.1
    assert 0 <= pane.min() <= pane.max() <= 1


def test_fog_keeps_the_maximum() -> None:
    """On a flat image c, fog t * banks with banks from 0 to 1 gives values from c^2 / (c + t) to c."""
    for severity, thickness in enumerate([0.2, 0.5, 0.75, 1, 1.5], start=1):
        result = apply(flat(0.8), "fog", severity)
        assert result.max().item() == pytest.approx(0.8, abs=1e-6)
        assert result.min().item() == pytest.approx(0.64 / (0.8 + thickness), abs=1e-6)


def deviations(field: Tensor, step: int) -> Tensor:
    """What diamond-square adds at one scale: a point minus the mean of its four neighbours on a torus, `[3, n, n]`."""
    corners = field[::step, ::step]
    middles, above = field[step // 2 :: step, step // 2 :: step], field[::step, step // 2 :: step]
    beside = field[step // 2 :: step, ::step]
    below, right = corners.roll(-1, 0), corners.roll(-1, 1)
    means = [
        (corners + below + right + corners.roll((-1, -1), (0, 1))) / 4,
        (corners + right + middles + middles.roll(1, 0)) / 4,
        (corners + below + middles + middles.roll(1, 1)) / 4,
    ]
    return torch.stack([middles, above, beside]) - torch.stack(means)


def test_plasma_is_diamond_square() -> None:
    smooth = plasma(32, 32, 30.0, generator(0))
    assert (smooth.min(), smooth.max()) == (0, 1)
    assert deviations(smooth, 2).abs().max() < 1e-3  # almost nothing is added at the finest scale


def test_plasma_roughness_falls_with_the_square_of_the_decay() -> None:
    for decay in (1.75, 3.0):
        field = plasma(256, 256, decay, generator(1))
        finer, coarser = deviations(field, 2), deviations(field, 4)
        assert torch.allclose(coarser.std((1, 2)) / finer.std((1, 2)), torch.tensor(decay**2), rtol=0.05)
        assert torch.corrcoef(finer.flatten(1)).triu(1).abs().max() < 0.04  # five standard errors


def test_spatter_of_water_adds_light_and_mud_covers() -> None:
    image = natural(64, 64)
    for severity in (1, 2, 3):
        added = apply(image, "spatter", severity, size=32) - image
        assert added.min() >= -1e-6
        assert added.max() > 0.2
        assert added.max() <= 0.5 * 238 / 255 + 1e-6
    for severity in (4, 5):
        result = apply(image, "spatter", severity, size=32)
        touched = (result != image).any(0)
        assert 0.005 < touched.float().mean() < 0.3
        mud = torch.tensor(MUD)[:, None]
        opacity = 1 - (result[:, touched] - mud).norm(dim=0) / (image[:, touched] - mud).norm(dim=0)
        assert opacity.min() > 0.79  # 0.8 by the published threshold


def test_light_stays_on_the_drop() -> None:
    drop = np.zeros((32, 32), np.float32)
    drop[8:20, 8:20] = 0.75
    light = gloss(drop)
    assert light.max() == pytest.approx(1)
    assert light[drop == 0].max() == 0
    assert gloss(np.zeros((32, 32), np.float32)).max() == 0


# Digital


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_and_saturation_through_hsv(severity: int) -> None:
    image = natural(32, 32)
    image[:, :4] = image[:1, :4]  # some grey
    image[:, 4, :4], image[:, 5, :4] = 0, 1  # some black and white
    shift = [0.05, 0.1, 0.15, 0.2, 0.3][severity - 1]
    hsv = rgb2hsv(hwc(image))
    hsv[..., 2] = np.clip(hsv[..., 2] + shift, 0, 1)
    assert np.abs(hwc(apply(image, "brightness", severity)) - hsv2rgb(hsv)).max() < 1e-5
    factor, shift = [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)][severity - 1]
    hsv = rgb2hsv(hwc(image))
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + shift, 0, 1)
    assert np.abs(hwc(apply(image, "saturate", severity)) - hsv2rgb(hsv)).max() < 1e-5


def test_brightness_closed_form_on_grey() -> None:
    assert apply(flat(0.25), "brightness", 5).allclose(flat(0.55))
    assert apply(flat(0.9), "brightness", 5).allclose(flat(1.0))
    assert apply(flat(0.0), "brightness", 5).allclose(flat(0.3))


@pytest.mark.parametrize(("severity", "factor"), enumerate([0.75, 0.5, 0.4, 0.3, 0.15], start=1))
def test_contrast_closed_form(severity: int, factor: float) -> None:
    image = natural(32, 32)
    mean = torch.stack([channel.mean() for channel in image])[:, None, None]
    assert apply(image, "contrast", severity).allclose(mean + factor * (image - mean), atol=1e-6)


@pytest.mark.parametrize(("size", "severity"), [(32, 1), (32, 2), (32, 5), (64, 3), (224, 1), (224, 5)])
def test_elastic_transform_is_the_published_map(size: int, severity: int) -> None:
    """The same draws through SciPy: affine by inverse map and mirrored borders, then `map_coordinates`."""
    image = natural(48, 48)
    strength, sigma, corner = CORRUPTIONS["elastic_transform"].parameters[size][severity - 1]
    draws = generator(0, "elastic_transform")
    corners = 24 + 16 * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + corner * (2 * torch.rand((3, 2), generator=draws).double().numpy() - 1)
    vertical, horizontal = (
        strength
        * gaussian(2 * torch.rand((48, 48), generator=draws).double().numpy() - 1, sigma, mode="reflect", truncate=3)
        for _ in range(2)
    )
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners).T  # [x, y] <- [x', y', 1]
    y, x = np.mgrid[:48, :48]
    old_x, old_y = (np.tensordot(row, np.stack([x, y, np.ones_like(x)]), 1) for row in back)
    expected = []
    for channel in image.numpy():
        affine = ndimage.map_coordinates(channel, [old_y, old_x], order=1, mode="mirror")
        expected.append(ndimage.map_coordinates(affine, [y + vertical, x + horizontal], order=1, mode="reflect"))
    error = np.abs(apply(image, "elastic_transform", severity, size=size).numpy() - np.stack(expected))
    assert error.mean() < 0.003  # OpenCV's affine map interpolates at 1/32 of a pixel
    assert error.max() < 0.05


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_and_jpeg_are_pillows(severity: int) -> None:
    image = (natural(32, 32) * 255).round() / 255
    picture = Image.fromarray((hwc(image) * 255).round().astype(np.uint8))
    side = [30, 28, 27, 24, 20][severity - 1]
    small = picture.resize((side, side), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
    error = np.abs(hwc(apply(image, "pixelate", severity)) - np.asarray(small) / 255)
    assert error.max() <= 1.01 / 255  # Pillow rounds twice
    file = BytesIO()
    picture.save(file, "JPEG", quality=[80, 65, 58, 50, 40][severity - 1])
    error = np.abs(hwc(apply(image, "jpeg_compression", severity)) - np.asarray(Image.open(file)) / 255)
    assert error.max() < 1e-6


def test_pixelate_is_piecewise_constant() -> None:
    image = natural(224, 300)
    result = apply(image, "pixelate", 5)  # a quarter: blocks of 4 x 4
    means = torch.nn.functional.avg_pool2d(image, 4)
    assert result.allclose(means.repeat_interleave(4, 1).repeat_interleave(4, 2), atol=1e-6)
