"""SDA's stages: every one goes on after an interruption and ends with what an uninterrupted one would have made."""

import copy
import dataclasses
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from diffcern.alignment import Alignment
from diffcern.data import ImageFolder, load_dataset
from diffcern.errors import DiffcernError, UsageError
from diffcern.methods.purification import DDA
from diffcern.predictors import load_predictor
from diffcern.predictors.adapted import save_adapted
from diffcern.run.executors import InProcess
from diffcern.train import finetune_predictor as finetuning
from diffcern.train.align import align
from diffcern.train.finetune_predictor import RECIPES, PredictorLearner, Recipe, finetune
from diffcern.train.materials.classes import Classes, class_indices
from diffcern.train.stages import Studio
from diffcern.train.views import Views, fitted, randomised

RECIPE = Recipe(epochs=3, learning_rate=3e-3, weight_decay=0.01, augmentation="affine", batch_size=3)


def silent(done, total, what):
    """No progress."""


@pytest.fixture
def run(predictor, prior, tmp_path):
    """Runs all stages over the exact prior: 4 classes x 3 images of 8 x 8 pixels."""
    alignment = Alignment(
        *("mine", "exact", "exact", {}, "dda", {}, predictor.class_names),
        per_class=3,
        sampling={"steps": 4, "solver": "ddim", "guidance_scale": 1.5},
        resynthesis=True,
        recipe=dataclasses.asdict(RECIPE),
        seed=0,
    )
    purifier = DDA(predictor, prior, start=300, steps=3, weight=0.3).purifier

    def make(name="out", batch_size=4, report=silent, **changes):
        changed = dataclasses.replace(alignment, **changes)
        learner = PredictorLearner(predictor, changed.predictor, Recipe(**changed.recipe))
        material, out = Classes(changed.classes, changed.per_class), tmp_path / name
        studio = Studio(out, material.telling(prior), prior, purifier, {**changed.sampling, "rows": batch_size}, 0)
        made = (lambda: studio), InProcess()
        losses = align(out, changed, material, learner, *made, batch_size=batch_size, report=report)
        return tmp_path / name, losses

    return make


def contents(folder: Path):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_stages(run, predictor):
    before = copy.deepcopy(predictor.state_dict())
    out, losses = run()
    names = {f"{k}/{i}.png" for k in range(4) for i in range(3)}
    expected = {f"{stage}/{name}" for stage in ("generated", "aligned") for name in names}
    assert contents(out).keys() == expected | {"align.json", "predictor/adapted.json", "predictor/model.safetensors"}
    assert len(losses) == RECIPE.epochs + 1
    assert all(torch.equal(before[name], value) for name, value in predictor.state_dict().items())
    weights = load_file(out / "predictor" / "model.safetensors")
    assert weights.keys() == predictor.model.state_dict().keys()
    assert run()[1] == []  # all of it is there
    assert len(load_dataset(f"imagefolder:{out / 'aligned'}")) == 12


def test_generated_images_are_of_their_class(run, prior):
    out, _ = run()
    data = ImageFolder(out / "generated", labelled=True)
    images = torch.stack([data[i].image for i in range(len(data))])
    assert prior.log_likelihood(prior.encode(images)).argmax(1).tolist() == list(data.targets)


@pytest.mark.parametrize("stop", [1, 2, 4, 6, 8, 12, 14])
def test_an_interrupted_run_ends_like_a_whole_one(run, stop):
    whole, losses = run("whole")
    reports = []

    def interrupt(done, total, what):
        reports.append(what)
        if len(reports) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("halves", report=interrupt)
    out, again = run("halves")
    assert contents(out) == contents(whole)
    assert again == losses


def test_images_that_were_lost_are_made_again_whatever_the_batch(run):
    out, _ = run()
    before = contents(out)
    for stage in ("generated", "aligned"):
        (out / stage / "2" / "1.png").unlink()
    run(batch_size=1)
    assert contents(out) == before
    single, _ = run("single", batch_size=1)
    assert contents(single) == before


def test_without_resynthesis(run):
    out, losses = run(resynthesis=False)
    assert not (out / "aligned").exists()
    assert len(losses) == RECIPE.epochs + 1


def test_other_settings_are_refused(run):
    out, _ = run()
    before = contents(out)
    with pytest.raises(DiffcernError, match=r"per_class was 3, is 4, sampling\.steps was 4, is 5"):
        run(per_class=4, sampling={"steps": 5, "solver": "ddim", "guidance_scale": 1.5})
    assert contents(out) == before


def test_classes_that_do_not_fit(run, prior, tmp_path):
    with pytest.raises(UsageError, match=r"know 1 of the predictor's 2 classes \(cat\); it knows 0, 1, 2, 3"):
        run(classes=("1", "cat"))
    prior.class_names = ("a/b", "..", "c", "d")
    with pytest.raises(UsageError, match=r"no folder can be called a/b, \.\."):
        class_indices(prior, prior.class_names)
    assert not (tmp_path / "out").exists()


def test_the_best_epoch_is_kept(run, predictor, monkeypatch):
    """A validation loss that only rises leaves the weights as they were."""
    losses = iter(range(100))
    monkeypatch.setattr(finetuning, "loss_on", lambda *_: float(next(losses)))
    out, history = run()
    assert history == [0.0, 1.0, 2.0, 3.0]
    kept = load_file(out / "predictor" / "model.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in predictor.model.state_dict().items())


def test_fine_tuning_learns(run, predictor, tmp_path):
    out, _ = run(per_class=10, recipe=dataclasses.asdict(dataclasses.replace(RECIPE, epochs=1)))
    data = ImageFolder(out / "aligned", labelled=True)
    recipe = dataclasses.replace(RECIPES["small"], epochs=8, learning_rate=1e-2, batch_size=12)
    adapted, losses = finetune(predictor, data, recipe, tmp_path / "p", seed=0, report=silent)
    images = torch.stack([data[i].image for i in range(len(data))])
    assert min(losses) < 0.5 * losses[0]
    assert (adapted(images).argmax(1) == torch.tensor(data.targets)).float().mean() > 0.9
    bad = dataclasses.replace(recipe, learning_rate=1e30, warmup=0.0)
    with pytest.raises(DiffcernError, match="--learning-rate"):
        finetune(predictor, data, bad, tmp_path / "q", seed=0, report=silent)


@pytest.mark.parametrize("augmentation", ["affine", RECIPES["paper"].augmentation, "timm"])
def test_a_view_belongs_to_seed_epoch_and_image(run, predictor, augmentation):
    out, _ = run()
    data = ImageFolder(out / "aligned", labelled=True)
    recipe = dataclasses.replace(RECIPE, augmentation=augmentation, erasing=0.25)
    view = recipe.view(predictor, data[0].image.shape)
    rows = range(len(data))
    torch.manual_seed(0)
    before = torch.rand(1)
    torch.manual_seed(0)
    first = torch.stack([Views(data, view, ("view", 1), 0)[i][0] for i in rows])
    assert torch.equal(torch.rand(1), before)  # the global generators are left alone
    again = torch.stack([Views(data, view, ("view", 1), 0)[i][0] for i in reversed(rows)]).flip(0)
    assert torch.equal(first, again)
    for key, seed in ((("view", 2), 0), (("view", 1), 1)):
        assert not torch.equal(torch.stack([Views(data, view, key, seed)[i][0] for i in rows]), first)
    parallel = torch.utils.data.DataLoader(Views(data, view, ("view", 1), 0), batch_size=12, num_workers=1)
    assert torch.equal(next(iter(parallel))[0], first)


def test_views_of_a_predictor_that_takes_any_size(predictor):
    predictor.size = None
    image, rng = torch.rand(3, 12, 20), torch.Generator()
    assert torch.equal(fitted(predictor, image.shape)(image, rng), image)
    assert randomised(predictor, image.shape, "rand-m9-n2", 0.25)(image, rng).shape == (3, 12, 20)


def test_a_native_predictor_comes_back(tmp_path):
    base = load_predictor("embedded:digits")
    changed = copy.deepcopy(base)
    for weight in changed.parameters():
        weight.data += 0.01
    save_adapted(changed, "embedded:digits", tmp_path)
    images = torch.rand(2, 3, 16, 16)
    loaded = load_predictor(str(tmp_path))
    assert torch.equal(loaded(images), changed(images))
    assert not torch.equal(loaded(images), base(images))
    some = load_predictor(str(tmp_path), labels=["3", "1"])
    assert torch.equal(some(images), loaded(images)[:, [3, 1]])


def test_a_timm_predictor_comes_back_with_its_classes(tmp_path, monkeypatch):
    name = "test_vit.r160_in1k"  # timm's own for tests
    model = timm.create_model(name, num_classes=3)
    timm.models.save_for_hf(
        model, tmp_path / "base", model_config={"label_names": ["a", "b", "c"]}, safe_serialization=True
    )
    monkeypatch.chdir(tmp_path)
    changed = load_predictor("base", labels=["c", "a"])
    changed.model.head.bias.data += torch.arange(3.0)
    save_adapted(changed, "base", tmp_path / "adapted")
    monkeypatch.chdir("/")  # the base is still found
    images = torch.rand(1, 3, 160, 160)
    loaded = load_predictor(str(tmp_path / "adapted"))
    assert loaded.class_names == ("c", "a")
    assert torch.equal(loaded(images), changed(images))


def test_weights_that_do_not_fit(tmp_path):
    base = load_predictor("embedded:digits")
    save_adapted(base, "embedded:digits", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "extra": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(DiffcernError, match=r"do not fit the predictor that adapted\.json names.*extra"):
        load_predictor(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DiffcernError, match=r"lacks model\.safetensors"):
        load_predictor(str(tmp_path))
    (tmp_path / "adapted.json").write_text('{"base": "embedded:nothing", "class_names": ["0"]}')
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match="unknown embedded predictor"):
        load_predictor(str(tmp_path))
