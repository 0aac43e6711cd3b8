"""SDA: its answers are the formula's, and it works with what its folder was made with and nothing else."""

import copy
import dataclasses

import pytest
import torch

from diffcern.alignment import Alignment, read_alignment
from diffcern.errors import DiffcernError, UsageError
from diffcern.fingerprints import fingerprint
from diffcern.methods import METHODS, build_method
from diffcern.methods.diffusion_tta import DiffusionTTA
from diffcern.methods.purification import DDA, PURIFIERS
from diffcern.methods.source import Source
from diffcern.predictors.adapted import save_adapted
from diffcern.priors import GaussianMixturePrior
from diffcern.types import Inputs

OPTIONS = {"start": 300, "steps": 3, "weight": 0.3, "border": "inside", "bounded": False}


@pytest.fixture
def adapted(predictor):
    torch.manual_seed(1)
    other = copy.deepcopy(predictor)
    for weight in other.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    return other


@pytest.fixture
def folder(tmp_path, predictor, prior, adapted):
    """As `diffcern align` leaves it, with weights that are other than the predictor's."""
    prints = {"predictor": fingerprint(predictor), "generator": "", "prior": fingerprint(prior)}
    names = ("mine", "exact", "exact", prints, "dda", OPTIONS, predictor.class_names)
    Alignment(*names, per_class=1, sampling={}, resynthesis=True, recipe={}, seed=0).begin(tmp_path / "out")
    save_adapted(adapted, "mine", tmp_path / "out" / "predictor")
    return tmp_path / "out"


@pytest.fixture
def build(predictor, prior, task, folder):
    def make(name="sda", predictor=predictor, prior=prior, **options):
        return build_method(name, predictor, prior, task, {"aligned": str(folder), **options})

    return make


def test_the_answer_is_the_sum_of_both_predictors(build, predictor, prior, adapted, inputs):
    purified = DDA(predictor, prior, **OPTIONS).purifier(inputs.images, inputs.ids)
    source, after = torch.softmax(predictor(inputs.images), -1), torch.softmax(adapted(purified), -1)
    assert not torch.allclose(torch.softmax(predictor(purified), -1), after, atol=1e-2)
    for options, expected in (({}, (source + after) / 2), ({"ensemble": "none"}, after)):
        method = build(**options)
        prediction, _ = method.step(method.init(), inputs, 0)
        # the logarithm and the softmax back round in fp32
        assert torch.allclose(prediction.probabilities, expected, atol=1e-5)
        assert [(c.nfe_forward, c.nfe_backward) for c in prediction.costs] == [(3, 3)] * len(inputs)


def test_with_feedback_each_branch_is_diffusion_tta_on_its_own_image(build, predictor, prior, task, adapted, inputs):
    one = inputs[:1]
    tta = {"steps": 2, "draws": 4, "optimizer": "adam", "learning_rate": 0.02}
    purified = Inputs(DDA(predictor, prior, **OPTIONS).purifier(one.images, one.ids), one.ids)

    def probabilities(model, seen, adapting):
        method = DiffusionTTA(model, prior, task, **tta) if adapting else Source(model)
        return method.step(method.init(), seen, 0)[0].probabilities

    plain = probabilities(adapted, purified, False)
    assert not torch.allclose(probabilities(adapted, purified, True), plain, atol=1e-3)  # feedback moves it
    for feedback, first, second in (("source", True, False), ("aligned", False, True), ("both", True, True)):
        method = build("sda-tta", feedback=feedback, **tta)
        prediction, _ = method.step(method.init(), one, 0)
        expected = (probabilities(predictor, one, first) + probabilities(adapted, purified, second)) / 2
        # the logarithm and the softmax back round in fp32
        assert torch.allclose(prediction.probabilities, expected, atol=1e-5)
        assert prediction.costs[0].nfe_forward == 3 + 8 * (first + second)


def test_only_unsure_images_are_purified(build, predictor, inputs):
    confidence = torch.softmax(predictor(inputs.images), -1).amax(1).detach()
    bar = confidence.median().item()
    method = build(skip=bar)
    prediction, _ = method.step(method.init(), inputs, 0)
    sure = confidence > bar
    assert 0 < int(sure.sum()) < len(inputs)
    assert [cost.nfe_forward for cost in prediction.costs] == [0 if alone else 3 for alone in sure.tolist()]
    expected = build().step(None, inputs, 0)[0].probabilities
    expected[sure] = torch.softmax(predictor(inputs.images), -1)[sure]
    assert torch.allclose(prediction.probabilities, expected, atol=1e-5)


def test_other_adapted_weights_are_another_method(build, adapted, folder):
    before = build().loaded
    assert before == build().loaded
    next(adapted.parameters()).data += 0.1
    save_adapted(adapted, "mine", folder / "predictor")
    assert build().loaded != before


def test_the_users_predictor_keeps_its_weights(build, predictor):
    before = copy.deepcopy(predictor.state_dict())
    build()
    assert all(torch.equal(before[name], value) for name, value in predictor.state_dict().items())


def test_other_models_are_refused(build, predictor, adapted, prior, task):
    with pytest.raises(UsageError, match=r"with the prior exact \(\w{16}\), and this is another"):
        build(prior=GaussianMixturePrior(prior.means, std=0.31))
    with pytest.raises(UsageError, match=r"with the predictor mine"):
        build(predictor=adapted)
    with pytest.raises(UsageError, match=r"classes of mine \(4: 0, 1, 2, 3\).*\(4: 1, 0, 2, 3\)"):
        build(predictor=copy.deepcopy(predictor).restrict(["1", "0", "2", "3"]))


def test_a_folder_that_is_none(build, folder, tmp_path):
    with pytest.raises(UsageError, match="aligned=FOLDER"):
        build(aligned="")
    with pytest.raises(UsageError, match=r"has no align\.json"):
        build(aligned=str(tmp_path))
    (folder / "predictor" / "adapted.json").unlink()
    with pytest.raises(DiffcernError, match=r"lacks adapted\.json"):
        build()
    (folder / "align.json").write_text("{")
    with pytest.raises(DiffcernError, match=r"cannot read .*align\.json"):
        build()


def test_a_folder_is_begun_once(folder, tmp_path):
    alignment = read_alignment(folder)
    alignment.begin(folder)
    other = dataclasses.replace(alignment, seed=1, options={**OPTIONS, "steps": 4})
    with pytest.raises(DiffcernError, match=r"\(options\.steps was 3, is 4, seed was 0, is 1\)"):
        other.begin(folder)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    with pytest.raises(DiffcernError, match=r"holds a\.txt and no align\.json"):
        alignment.begin(tmp_path / "notes")


def test_purify_does_not_offer_it():
    assert "sda" in METHODS
    assert set(PURIFIERS) == {"diffpure", "dda", "gda"}


FEEDBACK = {
    "steps": 3, "draws": 6, "strategy": "stratified", "weighting": "x0", "optimizer": "adamw", "learning_rate": 0.03,
    "temperature": 1.5, "rows": 7,
}  # fmt: skip


@pytest.mark.parametrize("branch", ["before", "after"])
def test_every_option_of_feedback_reaches_both_branches(build, prior, branch, monkeypatch):
    monkeypatch.setattr(type(prior), "clean_errors", torch.linspace(0, 1, 101))
    method = build("sda-tta", **FEEDBACK, familiar=0.25)
    inner = getattr(method, branch)
    kept = {name: value for name, value in FEEDBACK.items() if name not in ("optimizer", "learning_rate")}
    assert {name: getattr(inner, name) for name in kept} == kept
    assert (inner.optimizer.name, inner.optimizer.learning_rate) == ("adamw", 0.03)
    assert inner.clean_error == pytest.approx(0.25)
    assert inner.prior_optimizer is None
    assert method.purifier.rows == 7
    assert method.evaluations == 3 + 2 * (16 + 3 * 6)  # draws of a step are too few to tell what is familiar


def test_options_of_purification_reach_it(build, tmp_path):
    for name in ("sda", "sda-tta"):
        method = build(name, ensemble="entropy", skip=0.7, cache=str(tmp_path / "cache"), rows=5)
        assert (method.ensemble, method.skip, method.purifier.rows) == ("entropy", 0.7, 5)
        assert method.purifier.cache.folder == tmp_path / "cache"
        assert method.loaded


def test_a_home_is_the_users(build, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert build(aligned="~/out").loaded == build().loaded
