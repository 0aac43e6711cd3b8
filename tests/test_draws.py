import pytest
import torch

from diffcern.draws import STRATEGIES, check_draws, draw, radical_inverse
from diffcern.errors import UsageError
from diffcern.rng import generator

LATENTS = torch.zeros(2, 1, 2, 2)
RANDOM = ["uniform", "stratified", "antithetic", "van-der-corput"]


def draws(strategy, count, ids=("a", "b"), **options):
    return draw(strategy, count, LATENTS[: len(ids)], list(ids), seed=0, num_timesteps=1000, **options)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_draws_belong_to_the_sample(strategy):
    together, alone = draws(strategy, 8), draws(strategy, 8, ids=("b",))
    assert torch.equal(together.timesteps[1], alone.timesteps[0])
    assert torch.equal(together.noise[1], alone.noise[0])


@pytest.mark.parametrize("strategy", RANDOM)
def test_updates_and_samples_draw_afresh(strategy):
    first, second = draws(strategy, 8), draws(strategy, 8, update=1)
    assert not torch.equal(first.noise, second.noise)
    assert not torch.equal(first.noise[0], first.noise[1])


@pytest.mark.parametrize("strategy", RANDOM)
def test_unbiased_for_the_same_integral(strategy):
    """The mean over many samples of the estimate of E[t^2 + t eps + eps^2] is the integral 1/3 + 0 + 1."""
    ids = [f"s{i}" for i in range(3000)]
    d = draw(strategy, 4, torch.zeros(len(ids), 1, 1, 1), ids, seed=1, num_timesteps=1000)
    t, e = (d.timesteps + 0.5) / 1000, d.noise[:, :, 0, 0, 0]
    estimates = (t**2 + t * e + e**2).mean(1)
    error = estimates.std() / len(ids) ** 0.5
    assert abs(estimates.mean() - 4 / 3) < 4 * error  # 4 standard errors: fails once in 16,000 seeds


def test_stratified_times_vary_less():
    ids = [f"s{i}" for i in range(200)]
    spread = {
        s: draw(s, 16, torch.zeros(200, 1, 1, 1), ids, seed=0, num_timesteps=1000).timesteps.float().mean(1).std()
        for s in RANDOM
    }
    assert spread["stratified"] < spread["uniform"] / 4
    assert spread["van-der-corput"] < spread["uniform"] / 2


def test_antithetic_pairs_share_time_and_negate_noise():
    d = draws("antithetic", 8)
    assert torch.equal(d.timesteps[:, :4], d.timesteps[:, 4:])
    assert torch.equal(d.noise[:, :4], -d.noise[:, 4:])


def test_van_der_corput_is_bit_reversal():
    assert (radical_inverse(7) * 1000).int().tolist() == [500, 250, 750, 125, 625, 375, 875]


def test_even_times_are_the_published_ones():
    assert draws("even", 250).timesteps[0, :3].tolist() == [2, 6, 10]
    assert draws("even", 250).timesteps[0, -1] == 998


def test_fixed_bank_is_the_same_for_every_sample():
    d = draws("fixed-bank", 8)
    assert torch.equal(d.noise[0], d.noise[1])


def test_span_limits_the_times():
    assert draws("uniform", 50, span=(0.1, 0.1)).timesteps.unique().tolist() == [100]
    t = draws("uniform", 200, span=(0.5, 1.0)).timesteps
    assert t.min() >= 500
    assert t.max() <= 999


def test_errors_say_what_exists():
    with pytest.raises(UsageError, match=r"unknown draw strategy 'stratifed'.*'stratified'"):
        draws("stratifed", 8)
    with pytest.raises(UsageError, match="count"):
        draws("uniform", 0)
    with pytest.raises(UsageError, match="even number"):
        draws("antithetic", 5)
    with pytest.raises(UsageError, match="span"):
        draws("uniform", 1, span=(0.9, 0.1))


def test_times_are_rounded_down():
    """t = floor(T u): with one stratum for each time, each is drawn once, 0 and T - 1 too."""
    found = draw("stratified", 8, LATENTS[:1], ["a"], seed=0, num_timesteps=8).timesteps[0]
    assert sorted(found.tolist()) == list(range(8))


def by_hand(strategy, rng):
    """Eight times of [0, 1) from the generator, as each strategy's first line says."""
    if strategy == "uniform":
        return torch.rand(8, generator=rng, dtype=torch.float64)
    if strategy == "stratified":
        return (torch.arange(8) + torch.rand(8, generator=rng, dtype=torch.float64)) / 8
    if strategy == "antithetic":
        return ((torch.arange(4) + torch.rand(4, generator=rng, dtype=torch.float64)) / 4).repeat(2)
    if strategy == "van-der-corput":
        bits = torch.tensor([4, 2, 6, 1, 5, 3, 7, 0.5], dtype=torch.float64) / 8
        return (bits + torch.rand(1, generator=rng, dtype=torch.float64)) % 1
    return (torch.arange(8, dtype=torch.float64) + 0.5) / 8


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("seed", "update"), [(0, 0), (5, 0), (0, 2)])
def test_times_come_first_and_noise_from_the_same_generator(strategy, seed, update):
    """t = floor(T (low + (high - low) u)), keyed by (seed, "draws", id, update), a bank by its seed alone."""
    found = draw(strategy, 8, LATENTS, ["a", "b"], seed=seed, num_timesteps=1000, update=update, span=(0.2, 0.7))
    for row, id in enumerate("ab"):
        rng = generator(seed, *(["bank"] if strategy == "fixed-bank" else ["draws", id, update]))
        times = 0.2 + 0.5 * by_hand(strategy, rng)
        assert found.timesteps[row].tolist() == (1000 * times).floor().tolist()
        noise = torch.randn(4 if strategy == "antithetic" else 8, 1, 2, 2, generator=rng)
        noise = torch.cat([noise, -noise]) if strategy == "antithetic" else noise
        assert torch.equal(found.noise[row], noise)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_noise_has_the_latents_precision(dtype):
    found = draw("uniform", 4, LATENTS.to(dtype), ["a", "b"], seed=0, num_timesteps=1000)
    assert found.noise.dtype == dtype
    assert found.timesteps.dtype == torch.int64


@pytest.mark.parametrize("span", [(-0.1, 0.5), (0.5, 1.1), (0.6, 0.5)])
def test_spans_outside_of_the_range_are_refused(span):
    with pytest.raises(UsageError, match="0 <= low <= high <= 1"):
        check_draws("uniform", 1, span)


def test_the_ends_of_the_range_are_in_it():
    for span in ((0.0, 0.0), (1.0, 1.0), (0.0, 1.0)):
        check_draws("uniform", 1, span)
    assert draws("uniform", 3, span=(1.0, 1.0)).timesteps.unique().tolist() == [999]
