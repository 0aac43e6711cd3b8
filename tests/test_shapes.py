"""The annotated shapes are checked while tests run with CHECK_SHAPES=1, as in CI, and only then."""

import subprocess
import sys

import pytest
import torch
from jaxtyping import TypeCheckError

from diffcern.draws import Draws, draw
from diffcern.errors import UsageError
from diffcern.likelihood import condition_gradient, denoising_error, score
from diffcern.priors import GaussianMixturePrior
from diffcern.sampling import bounded, estimate, purify, sample
from diffcern.tasks import Classification, Depth, Segmentation
from diffcern.tasks.matching import matches
from diffcern.types import Condition, Denoised, Inputs, Prediction

checked = pytest.mark.skipif("shape_checks" not in sys.modules, reason="CHECK_SHAPES=1 switches the checks on")

LATENTS = torch.zeros(2, 3, 4, 4)
ONE = torch.ones(2, 1, 1, 1)


@pytest.fixture
def prior():
    return GaussianMixturePrior(torch.zeros(4, 3, 4, 4))


WRONG_VALUES = {
    "a label without a batch": lambda: Condition(classes=torch.eye(4)[0]),
    "a label in integers": lambda: Condition(classes=torch.eye(4).long()),
    "parts of different batches": lambda: Condition(tokens=torch.zeros(2, 5, 8), pooled=torch.zeros(3, 8)),
    "draws of other times": lambda: Draws(torch.zeros(2, 3).long(), torch.zeros(2, 4, 3, 4, 4)),
    "draws of other samples": lambda: Draws(torch.zeros(1, 4).long(), torch.zeros(2, 4, 3, 4, 4)),
    "times that are no numbers of steps": lambda: Draws(torch.zeros(2, 4), torch.zeros(2, 4, 3, 4, 4)),
    "noise of another size": lambda: Denoised(LATENTS, "eps", LATENTS[..., :2], ONE, ONE),
    "a schedule in double precision": lambda: Denoised(LATENTS, "eps", LATENTS, ONE.double(), ONE.double()),
    "a schedule of other samples": lambda: Denoised(LATENTS, "eps", LATENTS, torch.ones(3, 1, 1, 1), ONE),
    "images of one channel": lambda: Inputs(torch.zeros(2, 1, 4, 4), ["a", "b"]),
    "an image without a batch": lambda: Inputs(torch.zeros(3, 4, 4), ["a"]),
    "an answer in integers": lambda: Prediction(torch.zeros(2, 4).long()),
}


@checked
@pytest.mark.parametrize("make", WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_a_value_of_a_wrong_shape_cannot_be_made(make):
    with pytest.raises(TypeCheckError):
        make()


WRONG_CALLS = {
    "noise of fewer samples": lambda prior: denoising_error(
        prior(LATENTS, torch.tensor([1, 2]), Condition()), LATENTS, LATENTS[:1], torch.zeros(2)
    ),
    "one time for two samples": lambda prior: prior.add_noise(LATENTS, torch.tensor([1]), LATENTS),
    "candidates of fewer samples": lambda prior: score(
        prior, LATENTS, prior.hypotheses(), drawn(LATENTS), candidates=torch.tensor([[0, 1]])
    ),
    "a batch of times": lambda prior: estimate(prior, LATENTS, torch.tensor([1, 2]), Condition()),
    "a latent without a batch": lambda prior: bounded(prior, LATENTS[0]),
    "logits of pixels for classes": lambda _: Classification(("a", "b"), ("a", "b")).condition(torch.zeros(2, 2, 4, 4)),
    "one truth for two answers": lambda _: Classification.loss(torch.zeros(2, 4), torch.tensor([1])),
    "depth with channels": lambda _: Depth.loss(torch.ones(2, 1, 4, 4), torch.ones(2, 4, 4)),
    "masks of one sample": lambda _: Segmentation.loss(torch.zeros(2, 3, 4, 4), torch.zeros(1, 4, 4).long()),
    "one image's error too many": lambda _: matches(torch.zeros(2, 3), torch.zeros(3)),
}


def drawn(latents):
    ids = [f"image-{i}" for i in range(len(latents))]
    return draw("uniform", 2, latents, ids, seed=0, num_timesteps=1000)


@checked
@pytest.mark.parametrize("call", WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_a_call_with_shapes_that_do_not_fit_raises(call, prior):
    with pytest.raises(TypeCheckError):
        call(prior)


@pytest.mark.parametrize("count", [1, 3])
def test_draws_of_other_samples_are_an_error_for_users_too(prior, count):
    """Fewer draws than latents used to leave the last latents out, without a word."""
    draws = drawn(torch.zeros(count, 3, 4, 4))
    with pytest.raises(UsageError, match=f"2 latents, draws of {count}"):
        score(prior, LATENTS, prior.hypotheses(), draws)
    with pytest.raises(UsageError, match=f"2 latents, draws of {count}"):
        condition_gradient(prior, LATENTS, prior.hypotheses()[:2], draws)


@pytest.mark.parametrize("count", [1, 4])
def test_conditions_of_other_samples_are_an_error_for_users_too(prior, count):
    """One row used to be told to all latents, and of four the last two were left out."""
    told = prior.hypotheses()[:count]
    problem = pytest.raises(UsageError, match=f"2 latents, {count} rows")
    with problem:
        prior(LATENTS, torch.tensor([1, 2]), told)
    with problem:
        condition_gradient(prior, LATENTS, told, drawn(LATENTS))
    with problem:
        purify(prior, LATENTS, ["a", "b"], start=100, steps=2, condition=told)
    with problem:
        sample(prior, ["a", "b"], told, steps=2)


def test_nothing_is_checked_for_users():
    """Annotations cost a user nothing: without the hook they are words, and beartype is not even imported."""
    lines = [
        "import sys, torch",
        "from diffcern.types import Condition",
        "Condition(classes=torch.zeros(4))",
        "assert 'beartype' not in sys.modules",
    ]
    subprocess.run([sys.executable, "-c", "; ".join(lines)], check=True)
