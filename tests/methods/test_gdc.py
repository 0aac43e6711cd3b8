"""Prototypes of what the prior makes: as a method, and as the shortlist of a race."""

import hub_checkpoints
import pytest
import torch
from torch import nn

from diffcern.adapted import AdaptedModel
from diffcern.alignment import Alignment
from diffcern.data import encode_png
from diffcern.draws import draw
from diffcern.errors import DiffcernError, UsageError
from diffcern.methods import build_method, needs
from diffcern.methods.diffusion_classifier import DiffusionClassifier
from diffcern.methods.prototypes import Prototypes
from diffcern.moving import networks_in
from diffcern.predictors import Predictor
from diffcern.priors import load_prior
from diffcern.sampling import sample
from diffcern.tasks import Classification
from diffcern.types import Inputs

FEW = {"per_class": 8, "steps": 5}
RACE = {"draws": 16, "strategy": "van-der-corput", "stop": "race", "shortlist_size": 2}


@pytest.fixture
def generated(prior, predictor, tmp_path):
    """A folder as `diffcern align` leaves it after its first stage."""
    names = predictor.class_names
    Alignment(
        *("mine", "exact", "exact", {}, "dda", {}, names), per_class=6, sampling={}, resynthesis=True, recipe={}, seed=0
    ).begin(tmp_path / "aligned")
    ids = [f"{name}/{index}" for name in names for index in range(6)]
    told = prior.hypotheses()[[k for k in range(4) for _ in range(6)]]
    images = prior.decode(sample(prior, ids, told, steps=5, solver="ddim"))
    for id, image in zip(ids, images, strict=True):
        (file := tmp_path / "aligned" / "generated" / f"{id}.png").parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(image))
    return tmp_path / "aligned"


def test_images_of_the_prior_are_known_again_without_a_label(predictor, prior, task):
    """The predictor has random weights: its answers are worth nothing, its features are."""
    method = Prototypes(predictor, prior, task, **FEW)
    classes = torch.arange(40) % 4
    ids = [f"new-{i}" for i in range(40)]
    images = prior.decode(sample(prior, ids, prior.hypotheses()[classes], steps=5, solver="ddim"))
    answer, state = method.step(method.init(), Inputs(images, ids), 0)
    assert (answer.output.argmax(1) == classes).float().mean() > 0.9
    assert (predictor(images).argmax(1) == classes).float().mean() < 0.7
    assert state is None
    assert {(cost.nfe_forward, cost.nfe_backward) for cost in answer.costs} == {(0, 0)}
    assert torch.equal(method.step(None, Inputs(images, ids), 1)[0].output, answer.output)


def test_what_align_generated_is_read_and_not_made_again(predictor, prior, task, generated, inputs, monkeypatch):
    def never(*given, **options):
        raise AssertionError("sampled")

    monkeypatch.setattr("diffcern.methods.prototypes.sample", never)
    method = Prototypes(predictor, prior, task, generated=str(generated))
    assert method.step(None, inputs, 0)[0].output.shape == (12, 4)
    assert method.loaded
    with pytest.raises(AssertionError, match="sampled"):
        Prototypes(predictor, prior, task)


def test_a_folder_that_does_not_serve(predictor, prior, task, generated, tmp_path):
    with pytest.raises(UsageError, match="was not made by `diffcern align`"):
        Prototypes(predictor, prior, task, generated=str(tmp_path))
    for file in (generated / "generated" / "2").iterdir():
        file.unlink()
    with pytest.raises(UsageError, match="fewer of 1 classes: 2"):
        Prototypes(predictor, prior, task, generated=str(generated))
    for file in sorted((generated / "generated").rglob("*.png")):
        file.unlink()
    for folder in (generated / "generated").iterdir():
        folder.rmdir()
    (generated / "generated").rmdir()
    with pytest.raises(UsageError, match="no generated images yet"):
        Prototypes(predictor, prior, task, generated=str(generated))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_class": 1}, "per_class is 2 or more"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"encoder": "embedded:nothing"}, "unknown embedded predictor"),
    ],
)
def test_options_that_are_refused(predictor, prior, task, options, message):
    with pytest.raises(UsageError, match=message):
        Prototypes(predictor, prior, task, **{**FEW, **options})


def test_encoders_without_use(prior, task):
    class Broken(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.linear, self.value = nn.Linear(3, 4), value

        def forward(self, images):
            return self.linear(images.mean((2, 3)) * self.value)

    names = task.class_names
    with pytest.raises(DiffcernError, match="features are NaN"):
        Prototypes(Predictor(Broken(torch.nan), names), prior, task, **FEW)
    flat = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten())
    with pytest.raises(UsageError, match="no linear layer over features"):
        Prototypes(Predictor(flat, names), prior, task, **FEW)


def test_another_encoder_that_needs_another_size(predictor, prior, task, inputs):
    method = Prototypes(predictor, prior, task, encoder="embedded:digits", **FEW)  # of 16 x 16, for images of 8 x 8
    assert method.step(None, inputs, 0)[0].output.isfinite().all()
    assert method.loaded != Prototypes(predictor, prior, task, encoder="embedded:digit-pairs", **FEW).loaded


@pytest.mark.parametrize("which", ["predictor", "prototypes"])
def test_a_shortlist_by_what_the_predictor_sees(predictor, prior, task, inputs, which):
    method = build_method("diffusion-classifier", predictor, prior, task, {**RACE, "shortlist": which})
    scores = predictor(inputs.images)
    if which == "prototypes":
        scores = Prototypes(predictor, prior, task, **Prototypes.small).log_likelihood(inputs)
    answer, _ = method.step(None, inputs, 0)
    first = scores.argsort(1, descending=True)[:, :2]
    assert all(answer.output[i].argmax() in first[i] for i in range(12))
    assert all(cost.nfe_backward == 0 and cost.nfe_forward <= 2 * 16 for cost in answer.costs)
    assert method.evaluations == 2 * 16


def test_a_shortlist_by_a_predictor_needs_one(prior, task):
    assert not needs("diffusion-classifier", "predictor")
    for which in ("predictor", "prototypes"):
        with pytest.raises(UsageError, match="asks a predictor: give one"):
            build_method("diffusion-classifier", None, prior, task, {**RACE, "shortlist": which})
    with pytest.raises(UsageError, match="what prototypes are of"):
        build_method("diffusion-classifier", None, prior, task, {**RACE, "shortlist": "gradient", "generated": "x"})


def test_what_the_predictor_expects_is_weighed_with_what_the_prior_finds(predictor, prior, task, inputs):
    alone = build_method("diffusion-classifier", None, prior, task, RACE | {"shortlist_size": 5})
    both = build_method("diffusion-classifier", predictor, prior, task, RACE | {"class_prior": "predictor"})
    told, _ = both.step(None, inputs, 0)
    asked, _ = alone.step(None, inputs, 0)
    assert torch.allclose(told.output, asked.output + predictor(inputs.images).log_softmax(1))
    with pytest.raises(UsageError, match="class_prior = predictor asks a predictor"):
        build_method("diffusion-classifier", None, prior, task, RACE | {"class_prior": "predictor"})


def test_a_shortlist_is_of_classes_and_all_that_they_are_called(predictor, task, inputs, tmp_path):
    """Five sentences of one class are one class."""
    names = ("cat", "dog", "fox")
    prior = load_prior(
        str(hub_checkpoints.stable_diffusion(tmp_path / "sd")), labels=names, templates=["a {}", "one {}", "some {}"]
    )
    chosen = Classification(names, prior.class_names)
    method = DiffusionClassifier(prior, chosen, **RACE | {"shortlist": "gradient", "shortlist_draws": 2, "draws": 4})
    assert method.evaluations == 2 * 3 * 4 + 2
    seen = Inputs(inputs.images[:2], inputs.ids[:2])
    answer, _ = method.step(None, seen, 0)
    latents = prior.latents(seen.images)
    draws = draw("van-der-corput", 4, latents, seen.ids, seed=0, num_timesteps=prior.num_timesteps)
    listed = method.ranking(seen, latents, draws)
    assert listed.shape == (2, 3)
    assert all(answer.output[i].argmax() in listed[i].topk(2).indices for i in range(2))
    with pytest.raises(UsageError, match="2 or more of 3 classes, not 3"):
        DiffusionClassifier(prior, chosen, **RACE | {"shortlist": "gradient", "shortlist_size": 3})


@pytest.mark.parametrize("which", ["gradient", "predictor", "prototypes"])
def test_a_shortlist_moves_with_its_method(predictor, prior, task, which):
    method = build_method("diffusion-classifier", predictor, prior, task, {**RACE, "shortlist": which})
    model = AdaptedModel(method).to("meta")
    found = networks_in(model.method.ranking)
    assert found
    for module in found:
        assert {tensor.device.type for tensor in (*module.parameters(), *module.buffers())} == {"meta"}


def test_what_prototypes_were_of_is_part_of_what_a_run_remembers(predictor, prior, task, generated):
    options = {**RACE, "shortlist": "prototypes", "generated": str(generated)}
    method = build_method("diffusion-classifier", predictor, prior, task, options)
    assert method.loaded == Prototypes(predictor, prior, task, generated=str(generated)).loaded != ""
