"""Races: who leaves and when, what it costs, what is promised, and that an answer depends on the image alone."""

import math

import pytest
import torch
from scipy import stats

from diffcern.draws import Draws, draw
from diffcern.errors import DiffcernError, UsageError
from diffcern.likelihood import score
from diffcern.methods.diffusion_classifier import DiffusionClassifier
from diffcern.priors import GaussianMixturePrior
from diffcern.racing import Lane, Rule, log_e_value, race, standing
from diffcern.shortlists import slopes
from diffcern.tasks import Classification
from diffcern.types import Condition, Inputs

NAMES = tuple("abcdef")
TASK = Classification(NAMES, NAMES)
WHOLE = {"strategy": "van-der-corput", "draws": 32}


@pytest.fixture
def prior():
    """Six classes whose means are near each other: not every draw says which one it is."""
    means = 0.25 * torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return GaussianMixturePrior(means, class_names=NAMES)


@pytest.fixture
def inputs(prior):
    rng = torch.Generator().manual_seed(1)
    latents = prior.means[torch.arange(12) % 6] + 0.3 * torch.randn(12, 3, 4, 4, generator=rng)
    return Inputs((latents / 2 + 0.5).clamp(0, 1), [f"image-{i}" for i in range(12)])


def drawn(prior, inputs, count=32, strategy="van-der-corput"):
    latents = prior.encode(inputs.images)
    return latents, draw(strategy, count, latents, inputs.ids, seed=0, num_timesteps=prior.num_timesteps)


def test_standing_is_the_paired_t_value_with_shared_variances():
    differences = torch.tensor([[1.0, 2.0, 3.0], [2.0, 2.0, 5.0]])
    variances = torch.tensor([1.0, 3.0])
    shared = (2 * variances + 4 * 2.0) / 6
    assert torch.allclose(standing(differences), torch.tensor([2.0, 3.0]) / (shared / 3).sqrt())
    alone = differences[:1]
    assert standing(alone).item() == pytest.approx(stats.ttest_1samp(alone[0].numpy(), 0).statistic, rel=1e-6)


def test_the_e_value_is_the_ratio_of_two_marginals():
    """Of Student's t under a normal effect against none: t / sqrt(1 + n g) follows t_v under the first."""
    n, t = 7, 2.3
    wide = math.sqrt(1 + n)
    expected = stats.t.pdf(t / wide, n - 1) / wide / stats.t.pdf(t, n - 1)
    assert log_e_value(torch.tensor([t], dtype=torch.float64), n).item() == pytest.approx(math.log(expected))


def test_the_anytime_rule_keeps_its_promise_and_z_is_none():
    """Normal differences of mean 0, looked at after each of 100 draws: how often one that is as good leaves."""
    paths = torch.randn(2000, 100, generator=torch.Generator().manual_seed(0))
    sure, plain = Rule(risk=0.05), Rule(z=2.0)
    left = {"sure": torch.zeros(2000, dtype=torch.bool), "plain": torch.zeros(2000, dtype=torch.bool)}
    for n in range(3, 101):
        left["sure"] |= sure.leave(paths[:, :n], 1)
        left["plain"] |= torch.stack([plain.leave(path[None, :n], 1)[0] for path in paths[:200]]).repeat(10)
    assert left["sure"].float().mean() <= 0.05
    assert left["sure"].float().mean() > 0.005  # and it does leave: the promise is not kept by asking for ever
    assert left["plain"].float().mean() > 0.1


@pytest.mark.slow
def test_the_best_hypothesis_seldom_leaves(prior, inputs):
    """On the exact prior, where the truth is known: the mean over ten thousand draws."""
    latents, many = drawn(prior, inputs, 10_000, "uniform")
    truth = score(prior, latents, prior.hypotheses(), many, rows=4096).mean.argmin(1)
    wrong = races = 0
    for seed in range(20):
        draws = draw("uniform", 64, latents, inputs.ids, seed=seed, num_timesteps=1000)
        lanes = race(prior, latents, prior.hypotheses(), draws, Rule(risk=0.1))
        for lane, best in zip(lanes, truth.tolist(), strict=True):
            races += 1
            wrong += best not in lane.alive
    assert races == 240
    assert wrong <= 0.1 * races


def test_a_race_that_nobody_leaves_is_exhaustive(prior, inputs):
    latents, draws = drawn(prior, inputs)
    errors = score(prior, latents, prior.hypotheses(), draws)
    lanes = race(prior, latents, prior.hypotheses(), draws, Rule(z=1e6))
    assert [lane.best for lane in lanes] == errors.mean.argmin(1).tolist()
    assert all(lane.asked == 6 * 32 and lane.seen == 32 for lane in lanes)
    for lane, row in zip(lanes, errors.errors, strict=True):
        assert torch.allclose(lane.errors, row, atol=1e-6)
    margin, _ = errors.margin()
    assert lanes[0].notes()["rivals_left"] == 5
    assert min(gap for k, (gap, _) in lanes[0].gaps.items() if k != lanes[0].best) == pytest.approx(margin[0].item())


def test_who_stands_out_leaves_and_is_not_asked_again(prior, inputs):
    latents, draws = drawn(prior, inputs)
    for lane in race(prior, latents, prior.hypotheses(), draws, Rule(z=2.0)):
        asked = ~lane.errors.isnan()
        assert int(asked.sum()) == lane.asked < 6 * 32
        assert asked[:, :3].all()  # the start
        assert (asked.long().diff(dim=1) <= 0).all()  # nobody comes back
        assert lane.best in lane.alive
        for k in set(range(6)) - set(lane.alive):
            assert int(asked[k].sum()) <= lane.seen
            assert lane.gaps[k][0] > 0


def test_the_times_that_tell_most_come_first(prior, inputs):
    rule = Rule(first=(0.4, 0.9))
    times = torch.tensor([500, 100, 950, 400, 899, 901])
    assert rule.order(times, 1000).tolist() == [0, 3, 4, 1, 2, 5]
    latents, draws = drawn(prior, inputs)
    halves = Rule(z=1e6, first=(0.5, 1.0))
    lane, *_ = race(prior, latents, prior.hypotheses(), draws, halves)
    exhaustive = score(prior, latents, prior.hypotheses(), draws).errors[0]
    assert torch.allclose(lane.errors, exhaustive[:, halves.order(draws.timesteps[0], 1000)], atol=1e-6)


def test_hypotheses_of_one_class_need_not_be_told_apart(prior, inputs):
    latents, draws = drawn(prior, inputs)
    lanes = race(prior, latents, prior.hypotheses(), draws, Rule(z=2.0), owners=[0, 0, 0, 1, 1, 1])
    plain = race(prior, latents, prior.hypotheses(), draws, Rule(z=2.0))
    assert sum(lane.asked for lane in lanes) < sum(lane.asked for lane in plain)
    one = race(prior, latents, prior.hypotheses(), draws, Rule(z=2.0), owners=[0] * 6)
    assert all(lane.seen == 3 for lane in one)  # the first look, and it is over


def test_an_answer_depends_on_the_image_alone(prior, inputs):
    """In a batch, alone, in another order, run again: to the last bit, and as often asked."""
    method = DiffusionClassifier(prior, TASK, stop="race", shortlist="gradient", shortlist_size=3, **WHOLE)
    together, _ = method.step(None, inputs, 0)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2)).tolist()
    other, _ = method.step(None, Inputs(inputs.images[order], [inputs.ids[i] for i in order]), 0)
    for place, i in enumerate(order):
        alone, _ = method.step(None, Inputs(inputs.images[i : i + 1], [inputs.ids[i]]), 0)
        assert torch.equal(alone.output[0], together.output[i])
        assert torch.equal(other.output[place], together.output[i])
        assert alone.costs[0] == together.costs[i] == other.costs[place]
        assert alone.notes[0] == together.notes[i]


def test_side_by_side_is_the_same_race(prior, inputs):
    """As on a GPU, where rows are filled from all images that are open."""
    latents, draws = drawn(prior, inputs)
    together = race(prior, latents, prior.hypotheses(), draws, Rule(z=2.0), rows=7)
    for i, lane in enumerate(together):
        own = Draws(draws.timesteps[i : i + 1], draws.noise[i : i + 1])
        alone = race(prior, latents[i : i + 1], prior.hypotheses(), own, Rule(z=2.0))[0]
        assert (alone.best, alone.asked, alone.alive) == (lane.best, lane.asked, lane.alive)


def test_the_method_says_what_it_did(prior, inputs):
    method = DiffusionClassifier(prior, TASK, stop="race", **WHOLE)
    answer, _ = method.step(None, inputs, 0)
    latents, draws = drawn(prior, inputs)
    lanes = race(prior, latents, prior.hypotheses(), draws, Rule())
    assert answer.output.argmax(1).tolist() == [lane.best for lane in lanes]
    assert answer.output.isfinite().all()
    assert [cost.nfe_forward for cost in answer.costs] == [lane.asked for lane in lanes]
    for note in answer.notes:
        assert note.keys() == {"stopped_after", "rivals_left", "margin", "margin_standard_error"}
    assert method.evaluations == 6 * 32


def test_a_shortlist_costs_its_draws_and_is_all_that_is_asked(prior, inputs):
    options = {"stop": "race", "shortlist": "gradient", "shortlist_size": 3, "shortlist_draws": 4}
    method = DiffusionClassifier(prior, TASK, **options, **WHOLE)
    assert method.evaluations == 3 * 32 + 4
    answer, _ = method.step(None, inputs, 0)
    latents, draws = drawn(prior, inputs)
    some = draws.at(torch.arange(4)[None].expand(12, -1))
    listed = slopes(prior, latents, prior.hypotheses(), some).argsort(dim=1, stable=True)[:, :3]
    lanes = race(prior, latents, prior.hypotheses(), draws, Rule(), candidates=listed.tolist())
    for row, (chosen, lane) in enumerate(zip(listed.tolist(), lanes, strict=True)):
        assert answer.output[row].argmax().item() == lane.best in chosen
        assert (answer.costs[row].nfe_forward, answer.costs[row].nfe_backward) == (lane.asked + 4, 4)
        asked = [k for k in range(6) if not lane.errors[k].isnan().all()]
        assert sorted(asked) == sorted(chosen)


def test_slopes_are_the_derivative_by_the_weights_of_the_mixture(prior, inputs):
    latents, draws = drawn(prior, inputs, 8)
    found = slopes(prior, latents, prior.hypotheses(), draws)
    even, step = torch.full((12, 6), 1 / 6), 1e-3

    def loss(weights):
        """The mean error of each image under its own mixture."""
        every = score(prior, latents, Condition(classes=weights), draws, candidates=torch.arange(12)[:, None])
        return every.mean[:, 0].double()

    for k in range(6):
        up, down = even.clone(), even.clone()
        up[:, k] += step
        down[:, k] -= step
        assert torch.allclose((loss(up) - loss(down)) / (2 * step), found[:, k].double(), rtol=2e-2, atol=1e-3)


def test_a_prior_that_hears_nothing_has_no_shortlist(prior, inputs):
    class Deaf(GaussianMixturePrior):
        def denoise(self, x_t, timesteps, condition):
            return super().denoise(x_t, timesteps, Condition(classes=torch.ones_like(condition.classes)))

    class Numb(GaussianMixturePrior):
        """Reads it, and does nothing with it."""

        def denoise(self, x_t, timesteps, condition):
            return super().denoise(x_t, timesteps, Condition(classes=1 + 0 * condition.classes))

    for kind, message in ((Deaf, "it does not read it"), (Numb, "leave the shortlist out")):
        other = kind(prior.means, class_names=NAMES)
        latents, draws = drawn(other, inputs, 4)
        with pytest.raises(DiffcernError, match=f"no gradient by the condition.*{message}"):
            slopes(other, latents, other.hypotheses(), draws)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"z": 0.0}, "z is a number of standard errors above 0, not 0"),
        ({"z": -2.0}, "z is a number of standard errors above 0, not -2"),
        ({"start": 1}, "after 2 draws or more, not 1"),
        ({"start": 33}, "looks first after 33 draws, and there are 32: give more draws"),
        ({"risk": 1.0}, "risk is the probability"),
        ({"first": (0.5, 0.5)}, "first is a part of the times"),
        ({"strategy": "stratified"}, "strategy is one of van-der-corput, uniform"),
        ({"keep": (2, 1), "samples": (2, 8)}, "a race has no stages"),
        ({"stop": "", "shortlist": "gradient"}, "a shortlist is raced among"),
        ({"shortlist": "gradient", "shortlist_size": 6}, "2 or more of 6 classes, not 6"),
        ({"shortlist": "gradient", "shortlist_size": 1}, "2 or more of 6 classes, not 1"),
        ({"shortlist": "gradient", "shortlist_draws": 33}, "some of 32 draws, not 33"),
    ],
)
def test_what_a_race_refuses(prior, options, message):
    with pytest.raises(UsageError, match=message):
        DiffusionClassifier(prior, TASK, **{"stop": "race", **WHOLE, **options})


def test_a_lane_that_was_led_by_another_before():
    """The one that leads last is 0 behind; who was overtaken is behind by as much as when it was last looked at."""
    lane = Lane(torch.tensor([[0.0, 0.0, 3.0, 3.0], [1.0, 2.0, 1.0, 1.0]]), [0, 1], [0, 1])
    for seen, best in ((2, 0), (4, 1)):
        lane.seen = seen
        lane.look(Rule(z=100.0))
        assert lane.best == best
    assert lane.gaps[1] == (0.0, 0.0)
    assert lane.gaps[0][0] == pytest.approx(0.25)


def test_a_single_hypothesis_has_won():
    """As where a data set has one class: its gap is 0, and there is no margin."""
    lane = Lane(torch.tensor([[1.0, 2.0]]), [0], [0], seen=2)
    lane.look(Rule())
    assert lane.gaps == {0: (0.0, 0.0)}
    assert lane.notes().keys() == {"stopped_after", "rivals_left"}
