"""DiffPure, DDA and GDA: what they answer, what it costs, and what they refuse."""

import pytest
import torch
from predictors import checkpoints
from torch.nn import functional as F
from transformers import CLIPModel

from diffcern.data import load_dataset
from diffcern.errors import UsageError
from diffcern.feature_guides import MarginalEntropy, PatchContrast, StyleDirection
from diffcern.guides import Guide
from diffcern.methods import build_method
from diffcern.methods.purified import entropy, join, voted
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.purifier import Purifier, Route
from diffcern.tasks import Classification
from diffcern.types import Inputs

SHORT = {"start": 300, "steps": 4}


@pytest.fixture(scope="module")
def digits():
    """Predictor, prior, task and four digits."""
    data = load_dataset("embedded:digits")
    predictor, prior = load_predictor("embedded:digits"), load_prior("embedded:digits")
    inputs = Inputs(torch.stack([data[i].image for i in range(4)]), [data[i].id for i in range(4)])
    return predictor, prior, Classification(predictor.class_names, prior.class_names), inputs


def answer(digits, name, **options):
    predictor, prior, task, inputs = digits
    method = build_method(name, predictor, prior, task, {**SHORT, **options})
    return method.step(method.init(), inputs, 0)[0]


def test_ensembles():
    p, q = torch.tensor([[0.8, 0.2], [0.5, 0.5]]), torch.tensor([[0.4, 0.6], [0.1, 0.9]])
    assert torch.equal(join(p, q, "none"), q)
    assert torch.allclose(join(p, q, "sum"), torch.tensor([[0.6, 0.4], [0.3, 0.7]]))
    assert torch.equal(join(p, q, "entropy"), torch.tensor([[0.8, 0.2], [0.1, 0.9]]))
    weighted = (0.8 * p[0] + 0.6 * q[0]) / 1.4
    assert torch.allclose(join(p, q, "confidence-sum")[0], weighted)  # by the published names
    assert torch.equal(join(p, q, "confidence"), torch.tensor([[0.8, 0.2], [0.1, 0.9]]))
    assert entropy(torch.tensor([[1.0, 0.0]])).item() == 0.0


def test_diffpure_is_the_predictor_on_the_purified_image(digits):
    predictor, prior, _, inputs = digits
    prediction = answer(digits, "diffpure")
    purified = Purifier(prior, Route(**SHORT, solver="reverse-sde", clip=False))(inputs.images, inputs.ids)
    assert torch.allclose(prediction.probabilities, torch.softmax(predictor(purified), -1), atol=1e-4)
    assert [(c.nfe_forward, c.nfe_backward) for c in prediction.costs] == [(4, 0)] * 4


def test_dda_costs_and_the_published_batch_size(digits):
    """The published norm over a batch of 4 halves the weight; the gradient through the denoiser is counted."""
    whole = answer(digits, "dda", weight=0.2)
    assert torch.equal(answer(digits, "dda", weight=0.4, reference_batch_size=4).output, whole.output)
    assert [c.nfe_backward for c in whole.costs] == [4] * 4
    assert [c.nfe_backward for c in answer(digits, "dda", weight=0.2, form="estimate").costs] == [0] * 4


def test_a_confident_image_is_left_alone(digits):
    predictor, _, _, inputs = digits
    sure = torch.softmax(predictor(inputs.images), -1).amax(1)
    level = sure.sort().values[1:3].mean().item()
    prediction = answer(digits, "diffpure", skip=level)
    assert [c.nfe_forward for c in prediction.costs] == [0 if s > level else 4 for s in sure.tolist()]
    kept = sure > level
    assert torch.allclose(prediction.probabilities[kept], torch.softmax(predictor(inputs.images), -1)[kept], atol=1e-4)


def test_a_cache_is_used_and_changes_nothing(digits, tmp_path, monkeypatch):
    plain = answer(digits, "dda", weight=0.2)
    first = answer(digits, "dda", weight=0.2, cache=str(tmp_path))
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 4
    monkeypatch.setattr("diffcern.purifier.purify", None)  # must not be called again
    again = answer(digits, "dda", weight=0.2, cache=str(tmp_path))
    assert torch.equal(first.output, plain.output)
    assert torch.equal(again.output, plain.output)
    assert again.costs == plain.costs
    with pytest.raises(TypeError):
        answer(digits, "dda", weight=0.3, cache=str(tmp_path))


def test_marginal_entropy_and_patch_contrast_pull(digits):
    """A step along each gradient lowers the energy, for every image by its own."""
    predictor, prior, _, inputs = digits
    latents = prior.encode(inputs.images)
    torch.manual_seed(0)
    noisy = (latents + 0.5 * torch.randn_like(latents)).clamp(-0.9, 0.9)
    layer = next(n for n, m in predictor.named_modules() if type(m).__name__ == "ResidualBlock")
    for energy, step in ((MarginalEntropy(predictor), 0.05), (PatchContrast(predictor, layer), 0.005)):
        at = noisy.clone().requires_grad_()
        before = energy(at, latents)
        gradient = torch.autograd.grad(before.sum(), at)[0]
        after = energy(noisy - step * gradient, latents)
        assert (after < before).all()
        alone = energy(noisy[1:2], latents[1:2])
        assert torch.allclose(alone, before[1:2], atol=1e-4)


@pytest.fixture
def clip(tmp_path):
    """A folder in CLIP's format, with random weights."""
    torch.manual_seed(0)
    checkpoints.clip(tmp_path / "clip")
    return str(tmp_path / "clip")


def test_style_is_the_direction_between_two_texts(digits, clip):
    """1 - cos of how the image's features moved and of how the texts' do, in CLIP's space; each image by its own."""
    _, prior, _, inputs = digits
    model = load_predictor(clip, labels={"dark": ["a dark cat"], "bright": ["a bright cat"]})
    style, latents = StyleDirection(model), prior.encode(inputs.images)
    moved = (latents + 0.3 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    moved.requires_grad_()
    energy = style(moved, latents)
    network = CLIPModel.from_pretrained(clip)
    pictures = [model.prepare(((z + 1) / 2).expand(-1, 3, -1, -1)) for z in (latents, moved)]
    before, after = (F.normalize(network.get_image_features(picture).pooler_output, dim=-1) for picture in pictures)
    text = model.model.text[1] - model.model.text[0]
    expected = 1 - ((after - before) @ text) / (after - before).norm(dim=1) / text.norm()
    assert torch.allclose(energy, expected, atol=1e-4)
    gradient = torch.autograd.grad(energy.sum(), moved)[0]
    assert gradient.flatten(1).norm(dim=1).gt(0).all()
    assert torch.allclose(style(moved[1:2], latents[1:2]), energy[1:2], atol=1e-4)
    with pytest.raises(UsageError, match="between two texts"):
        StyleDirection(load_predictor(clip, labels=["one", "two", "three"]))


def test_gda_runs_with_all_its_terms(digits, clip):
    layer = next(n for n, m in digits[0].named_modules() if type(m).__name__ == "ResidualBlock")
    prediction = answer(digits, "gda", content=0.1, content_layer=layer, style=0.5, clip=clip)
    assert torch.isfinite(prediction.output).all()
    assert [c.nfe_backward for c in prediction.costs] == [4] * 4
    without = answer(digits, "gda", content=0.1, content_layer=layer)
    assert not torch.allclose(prediction.output, without.output, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dda", {"start": 1000}, "0 to 999"),
        ("dda", {"solver": "euler"}, "does not fit a prior"),
        ("dda", {"form": "gradient"}, "Input should be 'through', 'estimate' or 'replace'"),
        ("diffpure", {"ensemble": "max"}, "Input should be 'none', 'sum', 'entropy', 'confidence' or"),
        ("dda", {"factor": 3}, "sides that are multiples of the factor 3, not"),
        ("diffpure", {"skip": 1.5}, r"skip is a confidence"),
        ("gda", {"entropy": 0, "mse": 0}, "needs a weight above 0"),
        ("gda", {"style": 1.0}, "style needs clip"),
        ("gda", {"content": 1.0, "content_layer": "nope"}, "names a module of the predictor: model"),
    ],
)
def test_options_that_do_not_fit(digits, name, options, message):
    with pytest.raises(UsageError, match=message):
        answer(digits, name, **options)


def test_a_guide_that_looks_at_pixels_needs_a_pixel_prior(predictor, prior, task):
    with pytest.raises(UsageError, match="MarginalEntropy looks at pixels"):
        build_method("gda", predictor, prior, task, SHORT)
    assert Guide([(1.0, lambda x, y: (x - y).flatten(1).sum(1))]).check(prior) is None


def test_copies_vote():
    first = torch.tensor([[[0.6, 0.4, 0.0]], [[0.0, 0.9, 0.1]], [[0.5, 0.3, 0.2]]])
    assert voted(first, "mean")[0].tolist() == pytest.approx([1.1 / 3, 1.6 / 3, 0.1])
    assert voted(first, "majority").argmax(1).tolist() == [0]
    assert voted(first, "majority").sum(1).tolist() == pytest.approx([1.0])
    tie = voted(first[:2], "majority")  # one each: the mean decides
    assert tie.argmax(1).tolist() == [1]
    maps = torch.rand(3, 2, 4, 5, 6).softmax(2)
    assert voted(maps, "majority").shape == maps.shape[1:]


def test_each_copy_has_noise_of_its_own(digits):
    """And its own share of the cost; an image's answer is the same in any company."""
    options = {"start": 300, "steps": 2, "solver": "ddpm"}
    one, three = answer(digits, "diffpure", **options), answer(digits, "diffpure", copies=3, **options)
    assert [cost.nfe_forward for cost in three.costs] == [3 * cost.nfe_forward for cost in one.costs]
    assert not torch.allclose(one.output, three.output)
