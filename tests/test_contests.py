"""Scores from comparisons that race: the same as from all errors where nobody stops, cheaper where they do."""

import itertools

import pytest
import torch

from diffcern.contests import Comparison, contest
from diffcern.errors import UsageError
from diffcern.racing import Rule, standing
from diffcern.tasks.matching import comparisons, grouped, matches

DRAWS = 64


def made(images, captions, seed, spread):
    """Errors `[entries, draws]` that differ a little between entries and a lot between draws."""
    rng = torch.Generator().manual_seed(seed)
    means = spread * torch.rand(images * (captions + 1), 1, generator=rng)
    return means + torch.rand(1, DRAWS, generator=rng) + 0.05 * torch.randn(len(means), DRAWS, generator=rng)


def raced(errors, images, captions, rule):
    asked = []

    def ask(entries, coming):
        asked.append((tuple(entries), len(coming)))
        return errors[entries, coming.start : coming.stop]

    verdict = contest(ask, comparisons(images, captions), len(errors), DRAWS, rule)
    assert verdict.asked == sum(len(entries) * count for entries, count in asked)
    assert all(set(later) <= set(earlier) for (earlier, _), (later, _) in itertools.pairwise(asked))
    return verdict


@pytest.mark.parametrize(("images", "captions"), [(2, 2), (1, 4), (3, 3), (2, 5)])
@pytest.mark.parametrize("seed", range(6))
def test_without_a_stop_they_are_the_scores_of_the_means(images, captions, seed):
    errors = made(images, captions, seed, 0.01)
    verdict = raced(errors, images, captions, Rule(z=1e9))
    table = errors.mean(1).view(images, captions + 1)
    assert grouped(verdict.right) == matches(table[:, :-1], table[:, -1])
    used = errors.mean(1)
    if images == 1:  # nothing is compared with an image under no caption
        used[-1] = torch.nan
    assert verdict.asked == DRAWS * int(used.isfinite().sum())
    assert torch.allclose(verdict.errors, used, equal_nan=True)


def test_what_is_clear_is_not_asked_for_long():
    same, cost = 0, 0
    for seed in range(40):
        errors = made(2, 2, seed, 0.3)
        verdict = raced(errors, 2, 2, Rule(z=3.0, start=4))
        table = errors.mean(1).view(2, 3)
        same += grouped(verdict.right) == matches(table[:, :-1], table[:, -1])
        cost += verdict.asked
        assert verdict.errors.isfinite().all()
    assert same >= 38
    assert cost < 40 * 6 * DRAWS / 3


@pytest.mark.slow
def test_a_risk_is_kept_and_z_promises_nothing():
    """Two entries that are as good, so that an early verdict on them is wrong on one side; 300 images."""
    early = {}
    for rule in (Rule(risk=0.05), Rule(z=2.0)):
        found = [
            contest(
                lambda entries, coming, seed=seed: made(1, 1, seed, 0.0)[entries, coming.start : coming.stop],
                {"one": [Comparison((0,), (1,))]},
                2,
                DRAWS,
                rule,
            )
            for seed in range(300)
        ]
        early[rule] = sum(verdict.draws < DRAWS for verdict in found) / 300
    risked, plain = early.values()
    assert risked <= 2 * 0.05  # on either side
    assert plain > 0.15


def test_one_lost_comparison_decides_a_score():
    """The first is lost at once and the second in doubt for ever: nobody waits for it."""
    rng = torch.Generator().manual_seed(0)
    errors = torch.stack([torch.ones(DRAWS), torch.zeros(DRAWS), torch.ones(DRAWS)])
    errors[:2] += 0.01 * torch.randn(2, DRAWS, generator=rng)
    errors[2] += 0.5 * torch.randn(DRAWS, generator=rng)
    scores = {"one": [Comparison((0,), (1,)), Comparison((0,), (2,))]}
    verdict = contest(lambda entries, coming: errors[entries, coming.start : coming.stop], scores, 3, DRAWS, Rule())
    assert verdict.right == {"one": False}
    assert verdict.draws == 3


def test_a_tie_is_wrong():
    errors = torch.rand(1, DRAWS, generator=torch.Generator().manual_seed(0)).expand(6, -1)
    verdict = raced(errors, 2, 2, Rule())
    assert not any(verdict.right.values())
    assert verdict.draws == DRAWS


def test_one_image_and_one_caption():
    with pytest.raises(UsageError, match="leave nothing to tell apart"):
        comparisons(1, 1)


def test_a_verdict_says_how_sure_its_least_sure_score_is():
    """Right scores are as sure as their closest comparison, wrong ones as the clearest that is lost."""
    errors = made(2, 2, 0, 0.3)
    verdict = raced(errors, 2, 2, Rule(z=1e9))
    every = list(dict.fromkeys(itertools.chain(*comparisons(2, 2).values())))
    differences = torch.stack([comparison.differences(errors) for comparison in every])
    away = dict(zip(every, standing(differences).abs().tolist(), strict=True))
    lost = {comparison for comparison, mean in zip(every, differences.mean(1), strict=True) if mean >= 0}
    sure = []
    for compared in comparisons(2, 2).values():
        wrong = [away[c] for c in compared if c in lost]
        sure.append(max(wrong) if wrong else min(away[c] for c in compared))
    assert lost
    assert verdict.sure == pytest.approx(min(sure), rel=1e-5)
    assert verdict.draws == DRAWS
