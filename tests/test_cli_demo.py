"""`diffcern demo` for every task, on tiny models put in the place of those that ship."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from caption_checkpoints import caption_table
from caption_checkpoints import tiny as tiny_prior
from hub_checkpoints import loud
from question_checkpoints import RECIPE, picture, question_table

import diffcern.assets
import diffcern.run.answer
import diffcern.run.match
from diffcern.data import load_questions
from diffcern.data.scenes import Scenes
from diffcern.data.scenes.asking import QUESTION_KINDS
from diffcern.data.scenes.language import WORDS
from diffcern.errors import UsageError
from diffcern.predictors import load_predictor
from diffcern.predictors.native import NativePredictorConfig, native_predictor, save_predictor
from diffcern.predictors.question_answering import load_answerer, save_answerer
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.priors.spatial import Maps
from diffcern.run.spec import read_spec
from diffcern.train.captions import load_captioned
from diffcern.train.clip import ClipRecipe, train_clip
from diffcern.train.question_answering import new_answerer
from diffcern.train.recipes import Regime

SHIPPED = diffcern.assets.FOLDER
CPU = torch.device("cpu")
SMALL = {"width": 16, "depth": 1, "heads": 2, "patch": 4, "text_width": 16, "text_depth": 1, "text_heads": 2}
TEXT = " ".join(WORDS)  # all that a model has to know
NAMED = {  # embedded models by task
    "segmentation": ("scenes-segmentation-predictor", "scenes-segmentation-prior"),
    "depth": ("scenes-depth-predictor", "scenes-depth-prior"),
    "matching": ("scenes-text-prior", "scenes-clip-predictor"),
    "qa": ("scenes-text-prior", "scenes-answerer-predictor"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Untrained (CLIP: hardly trained) models in folders of the names and formats of those that ship."""
    root, data = tmp_path_factory.mktemp("assets"), tmp_path_factory.mktemp("data")
    torch.manual_seed(0)
    for task in ("segmentation", "depth"):
        names = Scenes.mask_names if task == "segmentation" else ()
        config = NativePredictorConfig("small-unet", 16, names, (0.5,) * 3, (0.25,) * 3, 4, 1, task)
        save_predictor(native_predictor(config), config, root / f"scenes-{task}-predictor")
        maps = Maps("segmentation", names) if names else Maps("depth", near=1.0, far=20.0)
        prior = native_prior(NativeConfig("dit", "x0", 8, 3, (), maps), width=16, depth=1, heads=2, patch=4)
        loud(prior.denoiser)
        prior.clean_errors = torch.linspace(0, 1e-3, 101)  # no image is familiar
        prior.save_pretrained(root / f"scenes-{task}-prior")
    tiny_prior([TEXT]).save_pretrained(root / "scenes-text-prior")
    captions = load_captioned(str(caption_table(data / "c.parquet", [(9, 9, 9), (200, 9, 9)], [TEXT, WORDS[0]])))
    folder = root / "scenes-clip-predictor"
    train_clip(captions, ClipRecipe(image_size=8, projection=8, **SMALL), Regime(16, 16, 1e-3), folder, device=CPU)
    image = {"bytes": picture((9, 9, 9), "left"), "path": None}
    asked = {"id": "a", "image": image, "question": f"{TEXT}?", "answer": "red", "choices": ["red", "blue"]}
    answerer = new_answerer(RECIPE, load_questions(question_table(data / "q.parquet", [asked])))
    loud(answerer.model)
    save_answerer(answerer, root / "scenes-answerer-predictor", torch.float32)
    return root


@pytest.fixture
def assets(made, monkeypatch) -> Path:
    monkeypatch.setattr(diffcern.assets, "FOLDER", made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("task", ["segmentation", "depth"])
def test_maps_end_with_a_table_and_a_report(assets, cli, tmp_path, task):
    code, out, err = cli("demo", "--task", task, "--count", "1", "--workers", "1", "--out", tmp_path / "run")
    assert code == 0, err
    assert {"segmentation": "mean IoU", "depth": "δ"}[task] in out
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    cells = json.loads((tmp_path / "run" / "summary.json").read_text())
    wanted = {"source", "bn-adapt", "diffusion-tta", "dda"} | ({"tent"} if task == "segmentation" else set())
    assert {cell["method"] for cell in cells} == wanted
    assert {cell["shift"] for cell in cells} >= {"clean", "gaussian_noise", "fog", "frost", "snow", "contrast"}
    assert all(cell["complete"] for cell in cells)


def test_matching_sets_two_models_side_by_side(assets, cli, tmp_path):
    command = ("demo", "--task", "matching", "--count", "4", "--out", tmp_path / "run")
    code, out, err = cli(*command)
    assert code == 0, err
    assert "generative" in out
    assert "contrastive" in out
    rows = {name: pq.read_table(tmp_path / "run" / f"{name}.parquet").to_pylist() for name in names("matching")}
    code, out, _ = cli(*command, "--json")  # of what is there
    summary = json.loads(out)
    for name, made in rows.items():
        assert len(made) == 4
        assert [row["tag"] for row in made] == ["attribute", "relation"] * 2
        found = {(row["group"], row["score"]): row for row in summary[name]}
        for score in ("text", "image", "group"):
            assert found["all", score]["value"] == sum(row[score] for row in made) / 4
            assert found["tag: relation", score]["value"] == sum(row[score] for row in made[1::2]) / 2
    assert [row["id"] for row in rows["generative"]] == [row["id"] for row in rows["contrastive"]]
    assert not list((tmp_path / "run").glob(".*"))


def test_questions_clean_and_under_a_shift(assets, cli, tmp_path):
    command = ("demo", "--task", "qa", "--count", "5", "--out", tmp_path / "run")
    code, out, err = cli(*command)
    assert code == 0, err
    assert "after - before" in out
    clean, shifted = (pq.read_table(tmp_path / "run" / f"{name}.parquet").to_pylist() for name in names("qa"))
    assert {row["kind"] for row in clean} == set(QUESTION_KINDS)
    assert [row["id"] for row in clean] == [row["id"] for row in shifted]
    assert "after" not in clean[0]
    for before, row in zip(clean, shifted, strict=True):
        assert row["nfe_forward"] == 20  # DDA's steps
        assert row["before_probabilities"] != before["before_probabilities"]  # it looked at another image
        assert row["purified_probabilities"] != row["before_probabilities"]
    code, out, _ = cli(*command, "--json")
    summary = json.loads(out)
    right = {row["answer"]: row["value"] for row in summary["gaussian_noise"] if row["group"] == "all"}
    assert right["after"] == sum(row["after"] == row["truth"] for row in shifted) / 5
    assert [row["answer"] for row in summary["clean"] if row["group"] == "all"] == ["before"]


@pytest.mark.parametrize(
    ("task", "module", "makes", "call"),
    [("matching", diffcern.run.match, "contrastive_rows", 1), ("qa", diffcern.run.answer, "answer_rows", 2)],
)
def test_an_interrupted_demo_goes_on_where_it_stopped(assets, cli, tmp_path, monkeypatch, task, module, makes, call):
    """In the second of its two files, which is made in that call."""
    command = ("demo", "--task", task, "--count", "3", "--out")
    assert cli(*command, tmp_path / "whole")[0] == 0
    original, calls = getattr(module, makes), []

    def stopping(*arguments, todo, **options):
        calls.append(3 - len(todo))
        for row in original(*arguments, todo=todo, **options):
            yield row
            if len(calls) == call:
                raise KeyboardInterrupt

    monkeypatch.setattr(module, makes, stopping)
    code, _, err = cli(*command, tmp_path / "halves")
    assert code == 130
    assert "1 rows are kept: run the same command to continue" in err
    code, _, err = cli(*command, tmp_path / "halves")
    assert code == 0, err
    assert "continuing: 1 of 3 are done" in err
    assert calls[call:] == [1]  # the first file was there, and was not made again
    for file in names(task):
        whole, halves = (pq.read_table(tmp_path / run / f"{file}.parquet").to_pylist() for run in ("whole", "halves"))
        for row in (*whole, *halves):
            del row["seconds"]
        for row in whole:  # batches of another size differ in rounding
            near = {name for name in row if name.endswith(("_confidence", "_probabilities"))}
            row |= {name: pytest.approx(row[name], abs=2e-6) for name in near}
        assert halves == whole


def test_an_interruption_before_any_row(assets, cli, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(diffcern.run.match, "load_contrastive", stop)
    code, _, err = cli("demo", "--task", "matching", "--count", "1", "--out", tmp_path / "run")
    assert code == 130
    assert "run the same command to continue" in err


def test_what_a_demo_refuses(assets, cli, tmp_path):
    code, _, err = cli("demo", "--task", "pose")
    assert code == 2
    assert all(task in err for task in ("classification", *NAMED))
    code, _, err = cli("demo", "--task", "qa", "--workers", "2")
    assert code == 2
    assert "--workers is for classification, segmentation, depth" in err
    assert cli("demo", "--task", "matching", "--count", "1", "--out", tmp_path / "run")[0] == 0
    for other in (("matching", "--count", "2"), ("qa", "--count", "1")):
        code, _, err = cli("demo", "--task", *other, "--out", tmp_path / "run")
        assert code == 1
        assert "give another --out" in err
    (tmp_path / "file").touch()
    code, _, err = cli("demo", "--task", "qa", "--out", tmp_path / "file")
    assert code == 1
    assert "is a file; give another --out" in err


def test_every_kind_of_model_is_embedded_in_one_way(assets):
    assert load_predictor("embedded:scenes-clip", labels=["red", "blue"], templates=["{}"]).class_names == (
        "red",
        "blue",
    )
    assert load_predictor("embedded:scenes-depth").task == "depth"
    assert load_answerer("embedded:scenes-answerer").template
    with pytest.raises(UsageError, match="embedded:scenes-clip needs labels"):
        load_predictor("embedded:scenes-clip")
    with pytest.raises(UsageError, match=r"embedded:scenes-answerer answers questions .* load_answerer"):
        load_predictor("embedded:scenes-answerer")
    with pytest.raises(UsageError, match="embedded:scenes-depth does not answer questions"):
        load_answerer("embedded:scenes-depth")


def test_the_list_says_what_each_is_for(assets, cli):
    listed = json.loads(cli("list", "--json")[1])
    purposes = {kind: {name: text for name, text in listed[kind].items() if "embedded" in name} for kind in listed}
    assert purposes["predictors"] == {
        "embedded:scenes-answerer": "shipped, for question answering (`diffcern answer`)",
        "embedded:scenes-clip": "shipped, for matching, and classification by labels of your own",
        "embedded:scenes-depth": "shipped, for depth",
        "embedded:scenes-segmentation": "shipped, for segmentation",
    }
    assert purposes["priors"] == {
        "embedded:scenes-depth": "shipped, for depth",
        "embedded:scenes-segmentation": "shipped, for segmentation",
        "embedded:scenes-text": "shipped, for matching, and images of captions",
    }


def test_the_shipped_specifications_are_for_the_test_split():
    for task in ("segmentation", "depth"):
        spec = read_spec(f"scenes-{task}")
        assert (spec.models.task, spec.data.dataset) == (task, "embedded:scenes/test")
        assert spec.models.predictor == spec.models.prior == f"embedded:scenes-{task}"


@pytest.mark.slow
@pytest.mark.parametrize("task", NAMED)
def test_the_weights_that_ship(cli, tmp_path, task):
    missing = [name for name in NAMED[task] if not (SHIPPED / name).is_dir()]
    if missing:
        pytest.skip(f"weights that are not trained yet: {', '.join(missing)}")
    if task in ("matching", "qa"):
        command = ("demo", "--task", task, "--count", "5")
    else:
        command = ("bench", f"scenes-{task}", "--set", "data.count=2", "--set", 'shifts.names=["clean"]')
    code, out, err = cli(*command, "--out", tmp_path / "run", "--json")
    assert code == 0, err
    assert "skipped" not in err  # all words are known
    assert json.loads(out)


def names(task: str) -> tuple[str, str]:
    """Of the result files."""
    return ("generative", "contrastive") if task == "matching" else ("clean", "gaussian_noise")
