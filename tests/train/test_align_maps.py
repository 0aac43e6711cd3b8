"""SDA for maps: images of known masks and depths, purified and shown in the size of targets; and its answers."""

import copy
import dataclasses
import json

import pytest
import torch
from torch.nn import functional as F

from diffcern.alignment import Alignment, read_alignment
from diffcern.data import Sample, Subset, decode
from diffcern.data.base import VOID
from diffcern.data.maps import decode_depth, decode_mask
from diffcern.errors import DiffcernError, UsageError
from diffcern.fingerprints import fingerprint
from diffcern.methods import build_method
from diffcern.methods.purification import DDA
from diffcern.predictors import Predictor, load_predictor
from diffcern.predictors.adapted import load_weights, save_adapted
from diffcern.predictors.native import NativePredictorConfig, native_predictor, save_predictor
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.priors.spatial import Maps
from diffcern.run.executors import InProcess
from diffcern.sampling import sample
from diffcern.tasks import task_of
from diffcern.train.align import align
from diffcern.train.finetune_predictor import MAP_RECIPES, PredictorLearner, Recipe, finetune
from diffcern.train.materials.maps import DrawnMaps, MapMaterial, choose_maps, kept_maps, telling
from diffcern.train.stages import Studio
from diffcern.train.views import MapViews
from diffcern.types import Condition, Inputs

NAMES = ("sky", "road", "car")
KNOWN = Maps("segmentation", ("car", "tree", "sky", "road"))  # in another order than the predictor's, and one more
METRES = Maps("depth", near=1.0, far=12.0)
RECIPE = Recipe(2, 1e-2, 0.01, "flip", warmup=0.0, label_smoothing=0.0, batch_size=2)
OPTIONS = {"start": 400, "steps": 2, "weight": 0.3, "form": "estimate", "border": "inside", "bounded": False}
SOURCE = {"data": "streets", "class_names": None, "class_map": {"auto": "car"}}
TASKS = ("segmentation", "depth")
SIZE = (16, 24)  # of the images; the prior's is 8 x 8


class Streets:
    """Four images of 16 x 24 pixels whose masks and depths are half as large; the masks' classes have another order."""

    name, class_names, class_ids, accepts = "streets", (), (), None
    mask_names = ("road", "sky", "car")
    ids, targets = tuple("abcd"), (-1,) * 4

    def __len__(self):
        return 4

    def __getitem__(self, index):
        mask = torch.zeros(8, 12, dtype=torch.long)
        mask[: 2 + index] = 1  # sky
        mask[6:, index * 2 : index * 2 + 3] = 2  # car
        mask[0, 0] = VOID
        depth = torch.linspace(9 - index, 2, 8)[:, None].repeat(1, 12)
        depth[:, 0] = 0
        return Sample(self.ids[index], torch.rand(3, *SIZE), -1, mask, depth)


def predictor_of(task):
    torch.manual_seed(0)
    names = () if task == "depth" else NAMES
    return native_predictor(config_of(task, names))


def config_of(task, names):
    return NativePredictorConfig("small-unet", 16, names, (0.5,) * 3, (0.25,) * 3, 4, 1, task)


def prior_of(maps):
    torch.manual_seed(1)
    prior = native_prior(NativeConfig("dit", "x0", 8, 3, (), maps), width=16, depth=1, heads=2, patch=4)
    for weight in prior.denoiser.parameters():  # adaLN-Zero starts as the zero function
        weight.data += 0.1 * torch.randn_like(weight)
    return prior


def chosen(task, count=6, dataset=None, names=("road", "sky", "car")):
    return choose_maps(dataset or Streets(), task, names, predictor_of(task).class_names, count, 0)


def silent(done, total, what):
    """No progress."""


@pytest.fixture(params=TASKS)
def run(request, tmp_path):
    """Runs all stages for six images of four maps, by a prior that draws and purifies."""
    task = request.param
    predictor, prior = predictor_of(task), prior_of(METRES if task == "depth" else KNOWN)

    def make(name="out", report=silent, batch_size=4, count=6, **changes):
        maps = kept_maps(tmp_path / name, task, SOURCE, count, 0) or chosen(task, count)
        prints = {"predictor": fingerprint(predictor), "prior": fingerprint(prior)}
        alignment = Alignment(
            *("mine", "prior", "prior", prints, "dda", OPTIONS, predictor.class_names, 1),
            sampling={"steps": 3, "solver": "ddim", "guidance_scale": 1.0},
            resynthesis=True,
            recipe=dataclasses.asdict(RECIPE),
            seed=0,
            maps=maps.settings(SOURCE),
        )
        changed = dataclasses.replace(alignment, **changes)
        learner = PredictorLearner(predictor, changed.predictor, Recipe(**changed.recipe))
        purifier, material = DDA(predictor, prior, **OPTIONS).purifier, MapMaterial(maps, predictor, SOURCE)
        sampling = {**changed.sampling, "rows": batch_size}
        studio = Studio(tmp_path / name, material.telling(prior), prior, purifier, sampling, 0)
        made = (lambda: studio), InProcess()
        losses = align(tmp_path / name, changed, material, learner, *made, batch_size=batch_size, report=report)
        return tmp_path / name, losses

    make.task, make.predictor, make.prior = task, predictor, prior
    return make


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_stages(run):
    before = copy.deepcopy(run.predictor.state_dict())
    out, losses = run()
    folder = "depths" if run.task == "depth" else "masks"
    files = {f"{stage}/{k:06d}.png" for stage in (folder, "generated", "aligned") for k in range(6)}
    assert contents(out).keys() == files | {"align.json", "predictor/adapted.json", "predictor/model.safetensors"}
    assert len(losses) == RECIPE.epochs + 1
    assert all(torch.equal(before[name], value) for name, value in run.predictor.state_dict().items())
    kept = read_alignment(out).maps
    assert (kept["task"], kept["data"], kept["count"], kept["size"]) == (run.task, "streets", 6, list(SIZE))
    assert run()[1] == []  # all of it is there
    maps = sorted((out / folder).iterdir())
    assert maps[0].read_bytes() == maps[4].read_bytes()  # four maps, in turn
    images = sorted((out / "generated").iterdir())
    assert images[0].read_bytes() != images[4].read_bytes()  # from other noise


def test_an_image_is_drawn_of_its_map(run):
    out, _ = run()
    stored = (out / ("depths" if run.task == "depth" else "masks") / "000002.png").read_bytes()
    street = Streets()[2]
    if run.task == "depth":
        truth = decode_depth(stored, "2")
        assert torch.allclose(truth, street.depth, atol=5.1e-4)  # millimetres
        truth[:, 0] = truth[:, 1]  # what is unknown takes the nearest known depth
    else:
        truth = decode_mask(stored, "2")
        ours = torch.tensor([1, 0, 2])[street.mask.clamp(max=2)]  # road, sky, car -> sky, road, car
        assert torch.equal(truth, torch.where(street.mask == VOID, VOID, ours))
    told = task_of(run.predictor, run.prior).condition_of_truth(truth[None])
    image = run.prior.decode(sample(run.prior, ["000002"], told, steps=3, solver="ddim"))[0]
    assert torch.allclose(decode(out / "generated" / "000002.png", "2"), image, atol=1 / 255)  # 8 bits
    other = run.prior.decode(sample(run.prior, ["000002"], Condition(), steps=3, solver="ddim"))[0]
    assert not torch.allclose(other, image, atol=2 / 255)  # the map matters


def test_training_sees_what_targets_are_shown_as(run, monkeypatch):
    """Both see purified images of the prior's size at the size of the images that the maps belong to."""
    seen, forward = [], Predictor.forward
    monkeypatch.setattr(Predictor, "forward", lambda self, images: seen.append(images) or forward(self, images))
    out, _ = run()
    purifier = DDA(run.predictor, run.prior, **OPTIONS).purifier
    ids = [f"{k:06d}" for k in range(6)]
    generated = [decode(out / "generated" / f"{id}.png", id) for id in ids]
    expected = F.interpolate(purifier(generated, ids), SIZE, mode="bilinear")
    for images in seen:
        for image in images:
            distances = [(image - way).abs().amax() for one in expected for way in (one, one.flip(-1))]
            assert min(distances) <= 1 / 255  # files have 8 bits
    task = task_of(run.predictor, run.prior)
    method = build_method("sda", run.predictor, run.prior, task, {"aligned": str(out), "ensemble": "none"})
    seen.clear()
    target = torch.rand(1, 3, *SIZE)
    method.step(None, Inputs(target, ["x"]), 0)
    shown = F.interpolate(purifier(target, ["x"]), SIZE, mode="bilinear")
    assert torch.allclose(torch.cat(seen), shown, atol=1e-6)  # the antialiasing kernel rounds otherwise


@pytest.mark.parametrize("stop", [1, 3, 7])  # generating, purifying, the second epoch
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


def test_the_folder_needs_the_data_no_more(run, tmp_path, monkeypatch):
    out, _ = run()
    before = contents(out)
    folder = out / ("depths" if run.task == "depth" else "masks")
    (out / "aligned" / "000001.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Streets, "__getitem__", lambda self, index: pytest.fail("the data set was read"))
        run(batch_size=1)
    assert contents(out) == before
    (folder / "000003.png").unlink()
    run()  # chosen again, the same
    assert contents(out) == before
    assert kept_maps(out, run.task, {**SOURCE, "data": "other"}, 6, 0) is None
    assert kept_maps(out, run.task, SOURCE, 5, 0) is None
    assert kept_maps(out, run.task, SOURCE, 6, 1) is None
    (folder / "000003.png").write_bytes((folder / "000002.png").read_bytes())
    with pytest.raises(DiffcernError, match=r"maps\.digest was"):
        run()
    with pytest.raises(DiffcernError, match=r"maps\.count was 6, is 5"):
        run(count=5)


def test_a_folder_from_before_maps_is_still_one(tmp_path):
    names = ("mine", "exact", "exact", {}, "dda", OPTIONS, ("0", "1"), 3)
    alignment = Alignment(*names, sampling={}, resynthesis=True, recipe={}, seed=0)
    alignment.begin(tmp_path / "out")
    path = tmp_path / "out" / "align.json"
    stored = json.loads(path.read_text())
    del stored["maps"]
    path.write_text(json.dumps(stored))
    assert (read_alignment(tmp_path / "out").per_class, read_alignment(tmp_path / "out").maps) == (3, {})
    alignment.begin(tmp_path / "out")  # goes on


def test_without_resynthesis(run):
    out, losses = run(resynthesis=False)
    assert not (out / "aligned").exists()
    assert len(losses) == RECIPE.epochs + 1


@pytest.mark.parametrize("kind", ["mask", "depth"])
def test_images_and_maps_are_mirrored_together(kind):
    class Shown(Streets):
        def __getitem__(self, index):
            image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(index))
            return dataclasses.replace(
                super().__getitem__(index % 4), id=f"{index}", image=image, **{"mask": None, kind: image[0]}
            )

        def __len__(self):
            return 8

    data = Shown()
    plain = [MapViews(data)[k] for k in range(8)]
    assert all(torch.equal(truth, data[k].image[0]) for k, (_, truth) in enumerate(plain))
    flipped = [MapViews(data, True, ("view", 1))[k] for k in range(8)]
    turned = [not torch.equal(a[0], b[0]) for a, b in zip(flipped, plain, strict=True)]
    assert 0 < sum(turned) < 8
    for (image, truth), (before, known), was in zip(flipped, plain, turned, strict=True):
        assert torch.equal(image, before.flip(-1) if was else before)
        assert torch.equal(truth, known.flip(-1) if was else known)
    again = [MapViews(data, True, ("view", 1))[k] for k in reversed(range(8))][::-1]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(again, flipped, strict=True))
    other = [MapViews(data, True, ("view", 2))[k] for k in range(8)]
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(other, flipped, strict=True))


def test_the_answer_is_the_mean_of_both_predictors(run, tmp_path):
    out, _ = run()
    task = task_of(run.predictor, run.prior)
    target = Inputs(torch.rand(1, 3, *SIZE), ["x"])
    adapted = copy.deepcopy(run.predictor)
    load_weights(adapted, out / "predictor")
    purified = DDA(run.predictor, run.prior, **OPTIONS).purifier(target.images, target.ids)
    with torch.no_grad():
        answers = run.predictor(target.images), adapted(F.interpolate(purified, SIZE, mode="bilinear"))
        unadapted = run.predictor(F.interpolate(purified, SIZE, mode="bilinear"))
    if run.task == "segmentation":
        answers, unadapted = tuple(answer.softmax(1) for answer in answers), unadapted.softmax(1)
    assert not torch.allclose(answers[1], unadapted, atol=1e-3)  # fine-tuning moved it
    prediction, _ = build_method("sda", run.predictor, run.prior, task, {"aligned": str(out)}).step(None, target, 0)
    found = prediction.output if run.task == "depth" else prediction.probabilities
    assert torch.allclose(found, (answers[0] + answers[1]) / 2, atol=1e-5)  # a logarithm and back in fp32
    options = {"aligned": str(out), "steps": 1, "draws": 2, "strategy": "stratified", "optimizer": "sgd"}
    both, _ = build_method("sda-tta", run.predictor, run.prior, task, {**options, "learning_rate": 1.0}).step(
        None, target, 0
    )
    assert both.output.shape == prediction.output.shape
    assert both.costs[0].nfe_forward == OPTIONS["steps"] + 2 + 2
    assert not torch.allclose(both.output, prediction.output, atol=1e-6)  # feedback moves it


def test_fine_tuning_learns(run, tmp_path):
    out, _ = run()
    data = DrawnMaps(out / "aligned", chosen(run.task))
    recipe = dataclasses.replace(MAP_RECIPES["small"], epochs=15, learning_rate=0.1, batch_size=5)
    _, losses = finetune(run.predictor, data, recipe, tmp_path / "p", seed=0, report=silent)
    assert min(losses) < 0.9 * losses[0]
    bad = dataclasses.replace(recipe, augmentation="affine")
    with pytest.raises(UsageError, match="flip or none"):
        finetune(run.predictor, data, bad, tmp_path / "q", seed=0, report=silent)


@pytest.mark.parametrize("task", TASKS)
def test_adapted_weights_come_back(task, tmp_path):
    config = config_of(task, () if task == "depth" else NAMES)
    save_predictor(predictor_of(task), config, tmp_path / "base")
    changed = load_predictor(str(tmp_path / "base"), labels=None if task == "depth" else ["car", "sky"])
    for weight in changed.parameters():
        weight.data += 0.05
    save_adapted(changed, str(tmp_path / "base"), tmp_path / "adapted")
    loaded = load_predictor(str(tmp_path / "adapted"))
    images = torch.rand(1, 3, *SIZE)
    assert (loaded.task, loaded.metric) == (task, changed.metric)
    assert loaded.class_names == (() if task == "depth" else ("car", "sky"))
    assert torch.equal(loaded(images), changed(images))


def test_maps_that_do_not_fit():
    class Bare(Streets):
        def __getitem__(self, index):
            return dataclasses.replace(super().__getitem__(index), mask=None, depth=None)

    for task, what in (("segmentation", "no masks.*column mask"), ("depth", "no depths.*column depth_mm")):
        with pytest.raises(UsageError, match=what):
            chosen(task, dataset=Bare())
    with pytest.raises(UsageError, match="give --class-names"):
        chosen("segmentation", names=())
    with pytest.raises(UsageError, match=r"show tram, which the predictor does not know \(it knows sky, road, car\)"):
        chosen("segmentation", names=("road", "sky", "tram"))
    with pytest.raises(DiffcernError, match="holds 2, and there are 2 classes"):
        chosen("segmentation", names=("road", "sky"))

    class Odd(Streets):
        def __getitem__(self, index):
            street = super().__getitem__(index)
            return dataclasses.replace(street, mask=torch.full((8, 12), VOID)) if index == self.odd else street

    class Mixed(Streets):
        def __getitem__(self, index):
            street = super().__getitem__(index)
            return dataclasses.replace(street, image=street.image.repeat(1, 2, 2)) if index else street

    Odd.odd = 1
    with pytest.raises(DiffcernError, match="mask of b is void everywhere"):
        chosen("segmentation", dataset=Odd())
    with pytest.raises(DiffcernError, match="different sizes"):
        chosen("depth", dataset=Mixed())
    assert list(chosen("depth", 2).files) == ["000000", "000001"]
    part = Subset(Streets(), [2, 0])
    assert chosen("depth", 3, part).files["000002"] == chosen("depth", 3, part).files["000000"]


def test_generators_that_cannot_draw_it():
    fewer = prior_of(Maps("segmentation", ("sky", "car")))
    with pytest.raises(UsageError, match=r"cannot draw what the predictor answers: .*the prior lacks road"):
        telling(predictor_of("segmentation"), fewer)
    with pytest.raises(UsageError, match="maps show depth; segmentation needs"):
        telling(predictor_of("segmentation"), prior_of(METRES))
    with pytest.raises(UsageError, match="takes no maps; depth needs"):
        telling(predictor_of("depth"), prior_of(None))
    relative = predictor_of("depth")
    relative.metric = False
    with pytest.raises(UsageError, match="relative inverse depth"):
        telling(relative, prior_of(METRES))
