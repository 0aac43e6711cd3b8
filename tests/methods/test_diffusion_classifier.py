"""Diffusion Classifier's scale, stages, notes and options, against the errors themselves."""

import pytest
import torch

from diffcern.draws import draw
from diffcern.errors import UsageError
from diffcern.likelihood import score
from diffcern.methods.diffusion_classifier import DiffusionClassifier, stage_indices
from diffcern.resizing import centre_view
from diffcern.tasks import Classification
from diffcern.types import Inputs

PIXELS = 3 * 8 * 8


def errors_of(prior, inputs, strategy="fixed-bank", count=8, seed=0, span=(0.0, 1.0), **options):
    latents = prior.encode(inputs.images)
    draws = draw(strategy, count, latents, inputs.ids, seed=seed, num_timesteps=1000, span=span)
    return score(prior, latents, prior.hypotheses(), draws, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strategy": "uniform"},
        {"weighting": "exp-7t"},
        {"norm": "l1"},
        {"span": (0.3, 0.6)},
        {"rows": 3},
        {"temperature": 4.0},
        {"seed": 5, "strategy": "stratified"},
    ],
)
def test_the_answer_is_the_gap_to_the_best(prior, task, inputs, options):
    """-D (mean error - best mean error) / temperature, and the paired margin between the two best."""
    known = {name: value for name, value in options.items() if name != "temperature"}
    result = errors_of(prior, inputs, **known)
    gaps = result.mean - result.mean.amin(1, keepdim=True)
    seed, given = options.get("seed", 0), {name: value for name, value in options.items() if name != "seed"}
    method = DiffusionClassifier(prior, task, draws=8, **given)
    answer, state = method.step(method.init(), inputs, seed)
    expected = -PIXELS * gaps / options.get("temperature", 1.0)
    assert torch.allclose(answer.output, expected, atol=1e-4, rtol=1e-4)
    margins = torch.stack(result.margin(), 1)
    notes = [[note["margin"], note["margin_standard_error"]] for note in answer.notes]
    assert torch.allclose(torch.tensor(notes), margins, rtol=1e-3, atol=1e-6)
    assert [(cost.nfe_forward, cost.nfe_backward) for cost in answer.costs] == [(4 * 8, 0)] * len(inputs)
    assert method.evaluations == 4 * 8
    assert state is None


def test_a_class_keeps_the_gap_of_the_stage_in_which_it_fell(prior, task, inputs):
    """Two stages: all four classes at two evenly spread times, then the two best at all eight."""
    method = DiffusionClassifier(prior, task, keep=(2, 1), samples=(2, 8))
    assert method.evaluations == 4 * 2 + 2 * 6
    answer, _ = method.step(None, inputs, 0)
    result = errors_of(prior, inputs)
    first = result.errors[..., [2, 6]].mean(-1)
    for row in range(len(inputs)):
        kept = first[row].argsort()[:2]
        gaps = first[row] - first[row].min()
        gaps[kept] = result.mean[row, kept] - result.mean[row, kept].min()
        assert torch.allclose(answer.output[row], -PIXELS * gaps, atol=1e-4, rtol=1e-4)
        difference = result.errors[row, kept[0]] - result.errors[row, kept[1]]
        assert answer.notes[row]["margin"] == pytest.approx(difference.mean().abs().item(), rel=1e-3)
        assert answer.costs[row].nfe_forward == 20


def test_stages_visit_the_middle_of_their_strata():
    assert stage_indices(8, 2) == [2, 6]
    assert stage_indices(8, 8) == list(range(8))
    assert stage_indices(10, 4) == [1, 3, 5, 7]  # T // M = 2, and no more than were asked for
    assert stage_indices(9, 1) == [4]


def test_a_class_is_as_good_as_its_best_prompt(prior, task, inputs, monkeypatch):
    """Two ways to say the first class, and one each for two others; the fourth is said by what the second also says."""
    owners = torch.tensor([0, 1, 2, 0])
    task = Classification(tuple("012"), tuple("012"))
    monkeypatch.setattr(type(prior), "phrasings", lambda self, hypotheses: (prior.hypotheses(), owners))
    monkeypatch.setattr(Classification, "hypotheses", lambda self, device=None: prior.hypotheses()[:3])
    method = DiffusionClassifier(prior, task, draws=8)
    answer, _ = method.step(None, inputs, 0)
    result = errors_of(prior, inputs)
    gaps = result.mean - result.mean.amin(1, keepdim=True)
    expected = torch.stack([torch.minimum(gaps[:, 0], gaps[:, 3]), gaps[:, 1], gaps[:, 2]], 1)
    assert torch.allclose(answer.output, -PIXELS * expected, atol=1e-4, rtol=1e-4)
    for row, note in enumerate(answer.notes):  # the runner-up says another class
        best = gaps[row].argmin()
        others = [k for k in range(4) if owners[k] != owners[best]]
        assert note["margin"] == pytest.approx(gaps[row, others].min().item(), rel=1e-3)


def test_of_one_class_there_is_no_margin(prior, inputs):
    alone = Classification(("0",), prior.class_names)
    answer, _ = DiffusionClassifier(prior, alone, draws=4).step(None, inputs, 0)
    assert list(answer.notes) == [{}] * len(inputs)
    assert answer.output.tolist() == [[0.0]] * len(inputs)


def test_the_view_is_of_the_photo(prior, task):
    photo = torch.rand(1, 3, 8, 16, generator=torch.Generator().manual_seed(0))
    for view, seen in (("centre", centre_view(photo[0])[None]), ("whole", photo)):
        answer, _ = DiffusionClassifier(prior, task, draws=4, view=view).step(None, Inputs(photo, ["a"]), 0)
        result = errors_of(prior, Inputs(seen, ["a"]), count=4)
        assert torch.allclose(answer.output, -PIXELS * (result.mean - result.mean.min()), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": (2, 1), "samples": (8,)}, "one entry per stage"),
        ({"keep": (), "samples": (8,)}, "one entry per stage"),
        ({"keep": (1, 2), "samples": (4, 8)}, "the last stage keeps 1"),
        ({"keep": (2, 1), "samples": (8, 4)}, "must grow"),
        ({"keep": (2, 1), "samples": (0, 4)}, "at least 1 in every stage"),
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": -1.0}, "above 0"),
        ({"strategy": "antithetic", "draws": 3}, "even number"),
        ({"span": (0.5, 0.2)}, "0 <= low"),
        ({"norm": "l3"}, "'l1' or 'l2'"),
        ({"weighting": "snr"}, "unknown weighting"),
    ],
)
def test_what_is_refused(prior, task, options, message):
    with pytest.raises(UsageError, match=message):
        DiffusionClassifier(prior, task, **options)


def test_stages_of_equal_length_are_allowed(prior, task):
    """The second stage asks nothing new."""
    assert DiffusionClassifier(prior, task, keep=(2, 1), samples=(8, 8)).evaluations == 4 * 8
