"""Purification against the exact prior, whose posterior and probability flow are formulas."""

import pytest
import torch
from diffusers import DDPMScheduler

from diffcern.errors import DiffcernError, UsageError
from diffcern.guides import Guide, LowPass, low_pass_matrix, mean_square
from diffcern.priors import GaussianMixturePrior, load_prior
from diffcern.priors.schedule import Schedule, schedule_of
from diffcern.rng import generator
from diffcern.sampling import purify, sample
from diffcern.solvers import DIFFUSION, SOLVERS, Solver
from diffcern.types import Condition

STD, START = 0.5, 600
STOCHASTIC = {"ddpm": {}, "sde-dpm-solver++": {}, "ddim": {"eta": 1.0}, "reverse-sde": {"steps": START + 1}}
DETERMINISTIC = ("ddim", "dpm-solver++", "unipc")


@pytest.fixture(scope="module")
def gaussian():
    """One class, N(0.3, 0.5^2) in every pixel."""
    return GaussianMixturePrior(torch.full((1, 3, 4, 4), 0.3), std=STD, log_snr=(9.0, -9.0))


def moments(prior, start=START):
    """alpha, sigma at the start, and the variance of x_t."""
    alpha, sigma = prior.alphas[start].item(), prior.sigmas[start].item()
    return alpha, sigma, alpha**2 * STD**2 + sigma**2


@pytest.mark.slow
@pytest.mark.parametrize("solver", STOCHASTIC)
def test_stochastic_solvers_draw_from_the_posterior(gaussian, solver):
    """Given the image x, x_t* is N(alpha x, sigma^2), and what comes back N(E[x0 | x_t*], Var[x0 | x_t*])."""
    x, count = 1.1, 400
    alpha, sigma, variance = moments(gaussian)
    shrink = alpha * STD**2 / variance
    mean = 0.3 + shrink * alpha * (x - 0.3)
    std = (STD**2 * sigma**2 / variance + (shrink * sigma) ** 2) ** 0.5
    latents = torch.full((count, 3, 4, 4), x)
    options = {"start": START, "steps": 150, "solver": solver, **STOCHASTIC[solver]}
    purified = purify(gaussian, latents, [str(i) for i in range(count)], **options)
    assert purified.mean().item() == pytest.approx(mean, abs=0.02)  # 19,200 numbers: a standard error of 0.004
    assert purified.std().item() == pytest.approx(std, rel=0.03)


@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_deterministic_solvers_follow_the_probability_flow(gaussian, solver):
    """Of a Gaussian it is a formula: x0 = mu + s / sqrt(alpha^2 s^2 + sigma^2) (x_t - alpha mu)."""
    alpha, sigma, variance = moments(gaussian)
    latents, ids = torch.randn(3, 3, 4, 4), ["a", "b", "c"]
    purified = purify(gaussian, latents, ids, start=START, steps=100, solver=solver)
    noise = torch.stack([torch.randn(3, 4, 4, generator=generator(0, "purify", id)) for id in ids])
    noised = alpha * latents + sigma * noise
    expected = 0.3 + STD / variance**0.5 * (noised - alpha * 0.3)
    assert (purified - expected).abs().max() < 0.03


def test_one_shot_is_the_posterior_mean(gaussian):
    alpha, _, variance = moments(gaussian)
    latents = torch.randn(2, 3, 4, 4)
    purified = purify(gaussian, latents, ["a", "b"], start=START, steps=7, solver="one-shot")
    noise = torch.stack([torch.randn(3, 4, 4, generator=generator(0, "purify", id)) for id in "ab"])
    noised = gaussian.add_noise(latents, torch.tensor([START, START]), noise)
    assert torch.allclose(purified, 0.3 + alpha * STD**2 / variance * (noised - alpha * 0.3), atol=1e-4)


def test_flow_matching(gaussian):
    """The same flow, in the straight-line coordinates of flow matching."""
    sigmas = torch.arange(1, 1001, dtype=torch.float64) / 1000

    class Flow(GaussianMixturePrior):
        def denoise(self, x_t, timesteps, condition):
            alpha, sigma = self.alpha_sigma(timesteps)
            x0 = 0.3 + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x_t - alpha * 0.3)
            return (x_t - x0) / sigma  # eps - x0 with x_t = alpha x0 + sigma eps, alpha + sigma = 1

    prior = Flow(torch.full((1, 3, 4, 4), 0.3), std=STD)
    prior.set_schedule(Schedule("flow", 1 - sigmas, sigmas, sigmas * 1000))
    latents = torch.randn(2, 3, 4, 4)
    purified = purify(prior, latents, ["a", "b"], start=599, steps=300, solver="euler")
    noise = torch.stack([torch.randn(3, 4, 4, generator=generator(0, "purify", id)) for id in "ab"])
    noised = 0.4 * latents + 0.6 * noise
    expected = 0.3 + STD / (0.16 * STD**2 + 0.36) ** 0.5 * (noised - 0.4 * 0.3)
    assert (purified - expected).abs().max() < 0.03
    with pytest.raises(UsageError, match="ddpm does not fit a prior that estimates flow: use euler"):
        Solver(prior, "ddpm", 500, 10)


def test_samples_have_the_priors_moments(gaussian):
    ids = [str(i) for i in range(300)]
    drawn = sample(gaussian, ids, Condition(classes=torch.ones(300, 1)), steps=50, solver="dpm-solver++")
    assert drawn.mean().item() == pytest.approx(0.3, abs=0.02)
    assert drawn.std().item() == pytest.approx(STD, rel=0.03)


def test_samples_are_of_their_class():
    means = torch.stack([torch.full((3, 4, 4), value) for value in (-0.8, 0.0, 0.8)])
    prior = GaussianMixturePrior(means, std=0.1)
    classes = torch.eye(3).repeat(2, 1)
    drawn = sample(prior, list("abcdef"), Condition(classes=classes), steps=20, solver="ddim")
    assert torch.allclose(drawn.mean((1, 2, 3)), classes @ torch.tensor([-0.8, 0.0, 0.8]), atol=0.1)
    guided = sample(prior, list("abcdef"), Condition(classes=classes), steps=20, solver="ddim", guidance_scale=1.5)
    assert torch.isfinite(guided).all()


@pytest.fixture(scope="module")
def digits():
    """A trained prior and eight digits."""
    from diffcern.data import load_dataset

    data = load_dataset("embedded:digits")
    prior = load_prior("embedded:digits")
    return prior, prior.encode(torch.stack([data[i].image for i in range(5)])), list("abcde")


GUIDES = {
    "none": None,
    "through": Guide([(0.5, LowPass(4)), (0.5, mean_square)]),
    "estimate": Guide([(0.5, LowPass(4))], "estimate"),
    "replace": Guide([(1.0, LowPass(4))], "replace"),
}


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "euler"])
@pytest.mark.parametrize("guide", GUIDES)
def test_an_image_is_purified_as_if_alone(digits, solver, guide):
    """In any batch, order and chunk; up to rounding, which differs in products of other sizes (1e-7 a step, and a
    trained network passes it on)."""
    prior, latents, ids = digits
    options = {"start": 400, "steps": 4, "solver": solver, "guide": GUIDES[guide]}
    whole = purify(prior, latents, ids, **options)
    assert torch.allclose(purify(prior, latents, ids, rows=2, **options), whole, atol=1e-3)
    order = [3, 0, 4, 1, 2]
    shuffled = purify(prior, latents[order], [ids[i] for i in order], **options)
    assert torch.allclose(shuffled, whole[order], atol=1e-3)
    assert torch.allclose(purify(prior, latents[2:3], ids[2:3], **options), whole[2:3], atol=1e-3)
    assert not torch.allclose(purify(prior, latents, ids, seed=1, **options), whole, atol=0.05)


@pytest.mark.parametrize("guide", ["through", "estimate", "replace"])
def test_a_guide_keeps_low_frequencies(digits, guide):
    """Nearer to the given image in low frequencies than without a guide, for every image."""
    prior, latents, ids = digits
    options = {"start": 600, "steps": 20, "solver": "ddpm"}
    low_pass = LowPass(4)
    free = low_pass(purify(prior, latents, ids, **options), latents)
    guided = low_pass(purify(prior, latents, ids, guide=GUIDES[guide], **options), latents)
    assert (guided < free).all()
    assert guided.mean() < 0.5 * free.mean()


def test_a_step_of_the_guide_is_the_equations_gradient(gaussian):
    """x_t-1 = x' - w grad_x_t || Phi(x) - Phi(x0_hat(x_t)) ||_2, by autograd through everything."""
    torch.manual_seed(0)
    reference, x = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4, requires_grad=True)
    x0 = gaussian(x, torch.tensor([500, 500]), Condition()).x0
    matrix = low_pass_matrix(4, 2)
    difference = torch.einsum("ij,bcjk,lk->bcil", matrix, reference - x0, matrix)
    expected = torch.autograd.grad(sum(6.0 * one.norm() for one in difference), x, retain_graph=True)[0]
    assert torch.allclose(Guide([(6.0, LowPass(2))]).gradient(x, x0, reference), expected, atol=1e-5)


def test_low_pass_is_one_linear_operator():
    from torch.nn.functional import interpolate

    x = torch.randn(1, 2, 16, 12)
    down = interpolate(x, (4, 3), mode="bicubic", antialias=True)
    assert torch.allclose(LowPass(4).filter(x), interpolate(down, (16, 12), mode="bicubic", antialias=True), atol=1e-5)


def test_the_reverse_sde_is_integrated_by_euler_maruyama(gaussian):
    """x + (beta / 2) x + beta s(x) + sqrt(beta) z with s = -eps_hat / sigma, at every timestep (arXiv 2011.13456)."""
    process = Solver(gaussian, "reverse-sde", 149, 150)
    assert process.timesteps.tolist() == list(range(149, -1, -1))
    x = torch.randn(2, 3, 4, 4)
    for index in (0, 70, 149):
        t = process.timesteps[index]
        denoised = gaussian(x, t.expand(2), Condition())
        before = gaussian.alphas[t - 1].double() if t > 0 else torch.tensor(1.0, dtype=torch.float64)
        beta = 1 - (gaussian.alphas[t].double() / before) ** 2
        rngs = [torch.Generator().manual_seed(k) for k in range(2)]
        z = torch.stack([torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(k)) for k in range(2)])
        expected = x + beta / 2 * x - beta * denoised.eps / gaussian.sigmas[t] + beta.sqrt() * z
        torch.testing.assert_close(process.step(index, denoised.x0, x, rngs), expected.float(), atol=1e-5, rtol=1e-4)


def test_estimates_are_clipped_unless_told_otherwise(gaussian):
    """A prior of pixels whose estimate leaves [-1, 1]."""
    gaussian.pixels, latents = True, torch.full((1, 3, 4, 4), 3.0)
    try:
        kept, free = (purify(gaussian, latents, ["a"], start=300, steps=1, clip=clip) for clip in (True, False))
    finally:
        del gaussian.pixels
    assert kept.max() <= 1
    assert free.max() > 1.2


def test_ddas_loop_is_the_published_one(digits):
    """Respaced ancestral steps and the gradient of the clamped estimate's distance, by autograd and loops.

    A trained prior, several images and steps: x' = mean(x_t, clamped x0_hat) + sqrt(beta~) z,
    x_{t-1} = x' - w grad_x_t ||Phi(x) - Phi(clamped x0_hat)||_2, Phi with zeros beyond the border.
    """
    prior, latents, ids = digits
    start, steps, weight = 399, 8, 0.3
    guide = Guide([(weight, LowPass(4, "zeros"))], bounded=True)
    ours = purify(prior, latents, ids, start=start, steps=steps, guide=guide)
    used = [round((k + 1) / steps * (start + 1)) - 1 for k in range(steps)]
    bars = [prior.alphas[t].double().item() ** 2 for t in used]
    for row, id in enumerate(ids):
        rng = generator(0, "purify", id)
        reference = latents[row : row + 1]
        x = bars[-1] ** 0.5 * reference + (1 - bars[-1]) ** 0.5 * torch.randn(reference.shape[1:], generator=rng)
        for k in reversed(range(steps)):
            x = x.detach().requires_grad_()
            x0 = prior(x, torch.tensor([used[k]]), Condition()).x0.clamp(-1, 1)
            gradient = torch.autograd.grad((zero_padded(reference) - zero_padded(x0)).norm(), x)[0]
            bar, before = bars[k], bars[k - 1] if k else 1.0
            beta = 1 - bar / before
            mean = before**0.5 * beta / (1 - bar) * x0 + (1 - beta) ** 0.5 * (1 - before) / (1 - bar) * x
            noise = torch.randn(reference.shape[1:], generator=rng) if k else 0.0
            x = mean + (beta * (1 - before) / (1 - bar)) ** 0.5 * noise - weight * gradient
        torch.testing.assert_close(ours[row : row + 1], x.detach(), atol=2e-4, rtol=0)  # fp32 and eight steps


def cubic(x):
    """Keys' kernel with a = -1/2."""
    x = abs(x)
    return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def zero_padded(x, factor=4):
    """Down by the factor with the widened kernel, and up again; what lies beyond the border counts as zero."""

    def matrix(rows, columns, scale):
        wide = max(1.0, 1 / scale)
        weights = torch.zeros(rows, columns, dtype=torch.float64)
        for i in range(rows):
            centre = (i + 0.5) / scale - 0.5
            near = range(int(centre - 2 * wide) - 1, int(centre + 2 * wide) + 3)
            total = sum(cubic((j - centre) / wide) for j in near)
            for j in near:
                if 0 <= j < columns:
                    weights[i, j] = cubic((j - centre) / wide) / total
        return weights

    side = x.shape[-1]
    once = matrix(side, side // factor, factor) @ matrix(side // factor, side, 1 / factor)
    return once.float() @ x @ once.float().T


@pytest.mark.parametrize("side", [16, 32, 256])
def test_the_published_low_pass_has_zeros_beyond_the_border(side):
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(LowPass(4, "zeros").filter(x), zero_padded(x), atol=2e-5, rtol=0)
    flat = LowPass(4, "zeros").filter(torch.ones(1, 1, side, side))
    assert flat[0, 0, side // 2, side // 2] == pytest.approx(1, abs=0.05 if side == 16 else 1e-5)
    assert flat[0, 0, 0, 0] < 0.8  # where "inside" keeps 1
    assert LowPass(4).filter(torch.ones(1, 1, side, side)).min() == pytest.approx(1, abs=1e-5)


def test_gdas_gradient_is_the_published_one(gaussian):
    """Times the step's variance, of the energy of s x0_hat + (1 - s) x_t with s = sqrt(1 - alpha_bar)."""
    torch.manual_seed(0)
    reference, x = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4, requires_grad=True)
    process = Solver(gaussian, "ddpm", 499, 50)
    for index in (0, 20, 49):
        t = process.timesteps[index]
        sigma, variance = gaussian.sigmas[t].item(), process.variance(index)
        x0 = gaussian(x, t.expand(2), Condition()).x0
        energy = (reference - (sigma * x0 + (1 - sigma) * x)).square().flatten(1).mean(1)
        expected = variance * torch.autograd.grad(7 * energy.sum(), x, retain_graph=True)[0]
        guide = Guide([(7.0, mean_square)], mixed=True, scaled=True)
        torch.testing.assert_close(guide.gradient(x, x0, reference, sigma=sigma, variance=variance), expected)
        bar = gaussian.alphas[t].double().item() ** 2
        before = gaussian.alphas[process.timesteps[index + 1]].double().item() ** 2 if index < 49 else 1.0
        if index < 49:  # the last step has the variance of the one before
            assert variance == pytest.approx((1 - bar / before) * (1 - before) / (1 - bar), rel=1e-4)
    assert process.variance(49) == process.variance(48)


@pytest.mark.parametrize("solver", DIFFUSION)
def test_the_last_step_is_the_estimate_itself(gaussian, solver):
    """All schedulers end at the clean image, also after a single step."""
    process = Solver(gaussian, solver, 300, 1)
    assert process.timesteps.tolist() == [300]
    x0, x = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    assert torch.allclose(process.step(0, x0, x, [torch.Generator()]), x0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 1000}, "0 to 999, not 1000"),
        ({"start": -1}, "0 to 999"),
        ({"steps": 602}, "steps are 1 to start"),
        ({"steps": 0}, "steps are 1"),
        ({"solver": "dpm"}, "unknown solver 'dpm'"),
        ({"solver": "euler"}, "euler does not fit a prior that estimates eps: use ddpm, ddim"),
        ({"eta": 0.5}, "eta belongs to ddim"),
        ({"solver": "ddim", "eta": 2.0}, "eta is 0 .deterministic. to 1"),
    ],
)
def test_settings_that_do_not_fit(gaussian, options, message):
    with pytest.raises(UsageError, match=message):
        purify(gaussian, torch.zeros(1, 3, 4, 4), ["a"], **{"start": START, "steps": 10, **options})


def test_guides_that_do_not_fit(gaussian):
    with pytest.raises(UsageError, match="one of through, estimate, replace"):
        Guide([(1.0, LowPass())], "stop")
    with pytest.raises(UsageError, match="one low-pass term"):
        Guide([(1.0, mean_square)], "replace")
    with pytest.raises(UsageError, match="finite and at least 0"):
        Guide([(-1.0, LowPass())])


@pytest.fixture
def terminal(gaussian):
    """The same Gaussian under a schedule that ends in pure noise, and a velocity for its estimate."""
    prior = GaussianMixturePrior(torch.full((1, 3, 4, 4), 0.3), std=STD)
    scheduler = DDPMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    prior.set_schedule(schedule_of(scheduler))
    assert prior.alphas[-1] == 0

    def velocity(x_t, timesteps, condition):
        alpha, sigma = prior.alpha_sigma(timesteps)
        x0 = 0.3 + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x_t - alpha * 0.3)
        return alpha * (x_t - alpha * x0) / sigma - sigma * x0

    prior.denoise = velocity
    return prior


@pytest.mark.parametrize("solver", DETERMINISTIC)
@pytest.mark.parametrize("steps", [1, 2, 50, 1000])
def test_a_schedule_that_ends_in_pure_noise(terminal, solver, steps):
    """From there the image is gone: x0 = mu + s eps in the limit of many steps."""
    ids = ["a", "b", "c"]
    purified = purify(terminal, torch.randn(3, 3, 4, 4), ids, start=999, steps=steps, solver=solver)
    assert torch.isfinite(purified).all()
    noise = torch.stack([torch.randn(3, 4, 4, generator=generator(0, "purify", id)) for id in ids])
    if steps == 1000:
        assert (purified - (0.3 + STD * noise)).abs().max() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("solver", STOCHASTIC)
@pytest.mark.parametrize("steps", [1, 2, 50, 300])
def test_samples_from_pure_noise(terminal, solver, steps):
    options = STOCHASTIC[solver] | {"start": 999, "steps": steps, "solver": solver}
    purified = purify(terminal, torch.zeros(300, 3, 4, 4), [str(i) for i in range(300)], **options)
    assert torch.isfinite(purified).all()
    if steps == 300:  # 14,400 numbers: standard errors of 0.004 and 0.003
        assert purified.mean().item() == pytest.approx(0.3, abs=0.02)
        assert purified.std().item() == pytest.approx(STD, rel=0.03)


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_few_steps_from_almost_pure_noise(steps):
    """The cosine schedule ends at alpha^2 = 2e-9: rounding must not leave ddim a negative variance."""
    prior = GaussianMixturePrior(torch.full((1, 3, 4, 4), 0.3), std=STD)
    prior.set_schedule(schedule_of(DDPMScheduler(beta_schedule="squaredcos_cap_v2")))
    purified = purify(prior, torch.zeros(8, 3, 4, 4), list("abcdefgh"), start=999, steps=steps, solver="ddim", eta=1.0)
    assert torch.isfinite(purified).all()


def test_an_estimate_of_the_noise_says_nothing_at_pure_noise(terminal):
    terminal.kind = "eps"
    with pytest.raises(UsageError, match="start at 998 or below"):
        purify(terminal, torch.zeros(1, 3, 4, 4), ["a"], start=999, steps=10)
    assert torch.isfinite(purify(terminal, torch.zeros(1, 3, 4, 4), ["a"], start=998, steps=10)).all()


def test_what_is_not_finite_is_said_without_a_guide_where_there_is_none(gaussian):
    with pytest.raises(DiffcernError) as error:
        purify(gaussian, torch.full((1, 3, 4, 4), torch.nan), ["a"], start=100, steps=10)
    assert "guide" not in str(error.value)
