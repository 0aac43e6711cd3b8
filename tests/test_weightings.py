import math

import pytest
import torch

from diffcern.errors import UsageError
from diffcern.likelihood import denoising_error
from diffcern.types import Denoised
from diffcern.weightings import WEIGHTINGS, ratio, weighting

ALPHA = torch.tensor([0.95, 0.6, 0.1], dtype=torch.float64)
SIGMA = (1 - ALPHA**2).sqrt()


def denoised(kind, x0_hat, x_t, alpha, sigma):
    """The output of a network of that kind whose belief is x0_hat."""
    a, s = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
    eps_hat = (x_t - a * x0_hat) / s
    output = {"eps": eps_hat, "x0": x0_hat, "v": a * eps_hat - s * x0_hat, "flow": eps_hat - x0_hat}[kind]
    return Denoised(output, kind, x_t, a, s)


@pytest.mark.parametrize("kind", ["eps", "x0", "v", "flow"])
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_error_does_not_depend_on_the_prediction_kind(kind, name):
    g = torch.Generator().manual_seed(0)
    x0, noise, belief = torch.randn(3, 3, 5, 1, 1, generator=g)
    x_t = ALPHA.view(-1, 1, 1, 1).float() * x0 + SIGMA.view(-1, 1, 1, 1).float() * noise
    result = denoised(kind, belief, x_t, ALPHA.float(), SIGMA.float())
    time = torch.tensor([0.1, 0.5, 0.9])
    error = denoising_error(result, x0, noise, time, name)
    eps_error = (noise - result.eps).square().mean((1, 2, 3))
    expected = eps_error * weighting(name)(ALPHA.float(), SIGMA.float(), time)
    assert torch.allclose(error, expected, rtol=1e-3)  # fp32 through x0 at alpha = 0.95 loses 1e-4


def test_closed_forms():
    time = torch.zeros(3, dtype=torch.float64)
    snr = ALPHA**2 / SIGMA**2
    assert torch.allclose(weighting("x0")(ALPHA, SIGMA, time), 1 / snr)
    assert torch.allclose(weighting("v")(ALPHA, SIGMA, time), 1 + 1 / snr)
    assert torch.allclose(weighting("min-snr")(ALPHA, SIGMA, time), (5 / snr).clamp(max=1))
    assert torch.allclose(weighting("exp-7t")(ALPHA, SIGMA, time + 0.5), torch.exp(torch.tensor(-3.5)) / snr)


def test_l1_is_scaled_by_the_root():
    x, one = torch.zeros(1, 4, 1, 1), torch.ones(1, 1, 1, 1)
    d = Denoised(0.3 + x, "x0", x, 0.6 * one, 0.8 * one)
    l1 = denoising_error(d, x, x, torch.zeros(1), "eps", "l1")
    assert torch.allclose(l1, torch.tensor([0.3 * 0.6 / 0.8]))


def test_unknown_names():
    with pytest.raises(UsageError, match="min-snr"):
        weighting("minsnr")
    x, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    d = Denoised(x, "eps", x, one, one)
    with pytest.raises(UsageError, match="'l1' or 'l2'"):
        denoising_error(d, x, x, torch.zeros(1), "eps", "l3")


def test_the_gamma_of_min_snr_is_five_and_flow_is_the_sum():
    """Around the cap of min(SNR, 5) / SNR; and ((alpha + sigma) / alpha)^2."""
    time = torch.zeros(3, dtype=torch.float64)
    snr = torch.tensor([4.9, 5.1, 20.0], dtype=torch.float64)
    alpha, sigma = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
    expected = torch.tensor([1.0, 5 / 5.1, 0.25], dtype=torch.float64)
    assert torch.allclose(weighting("min-snr")(alpha, sigma, time), expected)
    assert torch.allclose(weighting("flow")(ALPHA, SIGMA, time), (1 + SIGMA / ALPHA) ** 2)
    assert torch.equal(weighting("eps")(ALPHA, SIGMA, time), torch.ones(3, dtype=torch.float64))


def test_ratios_are_finite_where_nothing_is_left_of_the_image():
    """At alpha = 0 an error of the velocity, or of the flow, is one of the clean image; an equal one is exactly 1."""
    zero, one = torch.zeros(1), torch.ones(1)
    assert ratio("x0", "v", zero, one, one).item() == pytest.approx(1.0)
    assert ratio("x0", "flow", zero, one, one).item() == pytest.approx(1.0, rel=1e-5)
    assert ratio("v", "v", zero, one, one).item() == 1.0
    assert ratio("exp-7t", "x0", one / 2, one / 2, one / 7).item() == pytest.approx(math.exp(-1))
