"""A ControlNet whose name says what it reads: classes in colours, or depth, and their gradients."""

import json

import pytest
import torch
from diffusers import ControlNetModel, DiffusionPipeline, UNet2DConditionModel
from hub_checkpoints import controlled, loud

from diffcern.data.base import VOID
from diffcern.draws import draw
from diffcern.errors import DiffcernError, UsageError
from diffcern.fingerprints import fingerprint
from diffcern.likelihood import condition_gradient
from diffcern.methods import build_method
from diffcern.predictors.native import NativePredictorConfig, native_predictor
from diffcern.priors import load_prior
from diffcern.priors.controlnet import parse_control
from diffcern.tasks import Depth, Segmentation, task_of
from diffcern.types import Condition, Inputs

PALETTE = {"sky": "#06e6e6", "tree": "#04C803", "road": "#8c8c8c", "car": "#0066c8"}
NAMES = ("road", "sky", "car")  # of the predictor: some of the palette's, in another order
COLOURS = torch.tensor([[140, 140, 140], [6, 230, 230], [0, 102, 200]]) / 255


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """base/, control/ and palette.json: random weights in the exact hub format."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("controlnet")
    controlled(root)
    network = ControlNetModel.from_pretrained(root / "control")
    for name, weight in network.named_parameters():
        if name.startswith("controlnet_"):  # what training starts at zero: loud, so that a picture makes a difference
            weight.data += 0.3 * torch.randn_like(weight)
    network.save_pretrained(root / "control")
    (root / "palette.json").write_text(json.dumps(PALETTE))
    return root


def named(folder, reads, palette="palette.json"):
    after = f"+palette:{folder / palette}" if reads == "-seg" else ""
    return f"{folder / 'base'}+controlnet{reads}:{folder / 'control'}{after}"


@pytest.fixture(scope="module")
def segmenting(folder):
    return load_prior(named(folder, "-seg"))


@pytest.fixture(scope="module")
def measuring(folder):
    return load_prior(named(folder, "-depth"))


def test_maps_are_the_mean_colours_of_classes_at_the_images_size(segmenting):
    assert segmenting.maps.names == tuple(PALETTE)
    assert segmenting.spatial_shape == (3, 16, 16)  # latents are 8 x 8
    task = Segmentation(NAMES, segmenting)
    task.check(segmenting)
    logits = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = torch.einsum("bkhw,kc->bchw", logits.softmax(1), COLOURS)
    assert torch.allclose(task.condition(logits).spatial, expected, atol=1e-6)
    mask = torch.tensor([0, 1, 2, VOID]).repeat(1, 16, 4)
    told = task.condition_of_truth(mask).spatial[0, :, 0, :4]
    assert torch.allclose(told, torch.cat([COLOURS, torch.zeros(1, 3)]).T, atol=1e-6)  # black: no class


@pytest.mark.parametrize("kind", ["segmentation", "depth"])
def test_the_cut_gradient_is_the_uncut_one(kind, segmenting, measuring):
    """With respect to what the predictor gives: logits, or inverse depth; through diffusers' own networks."""
    prior = segmenting if kind == "segmentation" else measuring
    task = Segmentation(NAMES, prior) if kind == "segmentation" else Depth(metric=False, prior=prior)
    rng = torch.Generator().manual_seed(1)
    shape = (2, 3, 24, 20) if kind == "segmentation" else (2, 24, 20)  # an image's own size
    output = torch.randn(shape, generator=rng, requires_grad=True)
    z = torch.randn(2, *prior.latent_shape, generator=rng)
    draws = draw("stratified", 3, z, ["a", "b"], seed=0, num_timesteps=prior.num_timesteps)

    condition = task.condition(output)
    cut = condition_gradient(prior, z, condition, draws, rows=4)
    (by_cut,) = torch.autograd.grad(condition.spatial, output, cut.gradient.spatial)

    net, text, losses = prior.denoiser, prior.prompts([""] * 2).tokens, []
    for m in range(draws.count):
        t, noise = draws.timesteps[:, m], draws.noise[:, m]
        x_t, picture = prior.add_noise(z, t, noise), task.condition(output).spatial
        down, middle = net.controlnet(x_t, t, text, picture, return_dict=False)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        losses.append((net.unet(x_t, t, text, **residuals).sample - noise).square().flatten(1).mean(1))
    loss = torch.stack(losses).mean(0)
    assert torch.allclose(cut.loss, loss.detach(), rtol=1e-5)
    (uncut,) = torch.autograd.grad(loss.sum(), output)
    assert (uncut.flatten(1).abs().sum(1) > 0).all()
    assert torch.allclose(by_cut, uncut, rtol=1e-3, atol=1e-5 * uncut.abs().max().item())  # sums in another order


def test_depth_is_a_grey_picture_of_the_inverse_depth(measuring):
    """From its least to its greatest in the image: scale and shift play no part, near is white."""
    metres = torch.tensor([1.0, 2.0, 4.0, 5.0]).repeat_interleave(4).repeat(1, 16, 1)
    told = Depth(True, measuring).condition_of_truth(metres).spatial
    assert told.shape == (1, 3, 16, 16)
    grey = torch.tensor([1.0, (1 / 2 - 1 / 5) / (4 / 5), (1 / 4 - 1 / 5) / (4 / 5), 0.0])
    assert torch.allclose(told[0, :, 5, ::4], grey.expand(3, 4), atol=1e-6)
    relative = Depth(False, measuring)
    relative.check(measuring)
    assert torch.allclose(relative.condition(7 / metres - 3).spatial, told, atol=1e-5)


@torch.no_grad()
def test_without_a_condition_the_controlnet_is_left_out(folder, segmenting):
    x, t = torch.randn(2, *segmenting.latent_shape), torch.tensor([100, 800])
    unet = DiffusionPipeline.from_pretrained(folder / "base").unet
    expected = unet(x, t, segmenting.prompts([""] * 2).tokens).sample
    # 1e-5: one row of a prompt is encoded there, two here
    assert torch.allclose(segmenting(x, t, Condition()).output, expected, atol=1e-5)
    black = Condition(spatial=torch.zeros(2, *segmenting.spatial_shape))
    assert not torch.allclose(segmenting(x, t, black).output, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["segmentation", "depth"])
def test_diffusion_tta_moves_a_predictor_of_maps(kind, segmenting, measuring):
    prior = segmenting if kind == "segmentation" else measuring
    names = NAMES if kind == "segmentation" else ()
    torch.manual_seed(0)
    predictor = native_predictor(NativePredictorConfig("small-unet", 16, names, (0.5,) * 3, (0.25,) * 3, 4, 1, kind))
    options = {"steps": 4, "draws": 4, "resample": False, "optimizer": "sgd", "adapt_prior": False}
    options["learning_rate"] = 10.0 if kind == "segmentation" else 1.0  # small steps: the same draws, a lower error
    method = build_method("diffusion-tta", predictor, prior, task_of(predictor, prior), options)
    image = torch.rand(1, 3, 20, 28, generator=torch.Generator().manual_seed(0))
    prediction, _ = method.step(method.init(), Inputs(image, ["a"]), 0)
    assert prediction.trace[0][-1] < prediction.trace[0][0]
    assert prediction.output.shape == predictor(image).shape


def test_what_nobody_says_is_not_guessed(folder):
    prior = load_prior(named(folder, ""))
    assert (prior.maps, prior.colours) == (None, ())
    for task in (Segmentation(NAMES, prior), Depth(True, prior)):
        with pytest.raises(DiffcernError, match=r"\+controlnet-seg or \+controlnet-depth say it"):
            task.check(prior)


def test_another_palette_is_another_prior(folder, segmenting):
    (folder / "other.json").write_text(json.dumps(PALETTE | {"sky": "#000001"}))
    assert fingerprint(load_prior(named(folder, "-seg", "other.json"))) != fingerprint(segmenting)


def test_a_class_without_a_colour(segmenting):
    with pytest.raises(DiffcernError, match="the prior lacks boat"):
        Segmentation(("sky", "boat"), segmenting).check(segmenting)


def test_names_of_controlnets():
    assert parse_control("hf:a/b@main") == ("hf:a/b@main", None)
    base, control = parse_control("hf:a/b@main+controlnet:c/d@v2")
    assert (base, control.name, control.maps) == ("hf:a/b@main", "c/d@v2", None)
    base, control = parse_control("hf:a/b+controlnet-depth:c/d")
    assert (control.name, control.maps.kind, control.maps.near) == ("c/d", "depth", None)
    for name, message in (
        ("hf:a/b+controlnet-seg:c/d", r"no file of it holds these: write .* add it, hf:a/b\+controlnet-seg:c/d\+pal"),
        ("hf:a/b+controlnet-pose:c/d", "unknown ControlNet 'controlnet-pose'.*controlnet-depth, controlnet-seg"),
        ("hf:a/b+controlnet-depth:c/d+palette:p.json", "belongs to .controlnet-seg"),
        ("hf:a/b+controlnet:", "nothing follows .controlnet:"),
        ("hf:a/b+controlnet-seg:c/d+palette:no.json", "there is no palette no.json"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_control(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[1, 2]]", "must be an object"),
        ("{}", "must be an object"),
        ("{", "is not JSON"),
        ('{"sky": "blue"}', "holds 'sky': 'blue'"),
        ('{"sky": [6, 230, 230]}', r"holds 'sky': \["),
        ('{"sky": "#000000", "sky": "#000001"}', "names sky twice"),
    ],
)
def test_a_palette_that_is_none(content, message, tmp_path):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        parse_control(f"hf:a/b+controlnet-seg:c/d+palette:{tmp_path / 'p.json'}")


def test_a_controlnet_that_reads_no_picture(folder, tmp_path):
    unet = UNet2DConditionModel.from_pretrained(folder / "base", subfolder="unet")
    one = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8), conditioning_channels=1)
    loud(one).save_pretrained(tmp_path / "one")
    with pytest.raises(UsageError, match="one reads 1 channels, and a picture of depth has 3"):
        load_prior(f"{folder / 'base'}+controlnet-depth:{tmp_path / 'one'}")
