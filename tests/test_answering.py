"""`diffcern answer` and `diffcern align-answerer` as a user runs them, and what they are made of."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from caption_checkpoints import tiny as tiny_prior
from question_checkpoints import COLOURS, SIDE, SIDES, picture, question_table, saved
from typer.testing import CliRunner

from diffcern.alignment import read_alignment
from diffcern.cli import app
from diffcern.data import decode, load_dataset, load_questions
from diffcern.data.scenes.asking import QUESTION_KINDS, ask
from diffcern.data.scenes.language import OPPOSITE, WORDS, holds, statements
from diffcern.data.shifts import shift
from diffcern.errors import DiffcernError, UsageError
from diffcern.predictors.question_answering import load_answerer
from diffcern.priors import load_prior
from diffcern.run.answer import purification
from diffcern.sampling import sample
from diffcern.tasks.question_answering import accuracies, change
from diffcern.train import finetune_answerer as stages
from diffcern.train import stages as making
from diffcern.train.materials.captions import answered_by, drawings_of

SHORT = ["--set", "start=300", "--set", "steps=2", "--set", "weight=0.3", "--device", "cpu"]


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def printed(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.stdout)


@pytest.fixture
def llava(tmp_path):
    return saved(tmp_path / "llava")


@pytest.fixture
def prior(tmp_path):
    """Untrained; it reads the captions of scenes."""
    tiny_prior([" ".join(WORDS)]).save_pretrained(tmp_path / "prior", torch.float32)
    return tmp_path / "prior"


@pytest.fixture
def table(tmp_path):
    return question_table(tmp_path / "q.parquet")


def test_accuracies_by_kind_with_intervals():
    before, after = "aaaabbbb", "aaaaaabb"
    rows = [
        {"kind": "x" if k < 4 else "y", "truth": "a", "before": b, "purified": "c", "after": a}
        for k, (b, a) in enumerate(zip(before, after, strict=True))
    ]
    found = {(row["group"], row["answer"]): row for row in accuracies(rows)}
    assert {key: (row["value"], row["n"]) for key, row in found.items()} == {
        ("all", "before"): (0.5, 8),
        ("all", "purified"): (0.0, 8),
        ("all", "after"): (0.75, 8),
        ("all", "after - before"): (0.25, 8),
        ("x", "before"): (1.0, 4),
        ("x", "purified"): (0.0, 4),
        ("x", "after"): (1.0, 4),
        ("x", "after - before"): (0.0, 4),
        ("y", "before"): (0.0, 4),
        ("y", "purified"): (0.0, 4),
        ("y", "after"): (0.5, 4),
        ("y", "after - before"): (0.5, 4),
    }
    half = found["all", "before"]
    assert (half["ci_low"], half["ci_high"]) == pytest.approx((0.215, 0.785), abs=1e-3)  # Wilson's for 4 of 8
    assert accuracies([{"kind": "", "truth": "a", "before": "a"}])[0]["n"] == 1


def test_the_interval_of_a_change_is_that_of_a_paired_bootstrap():
    rng = np.random.default_rng(1)
    before = rng.random(400) < 0.6
    after = np.where(rng.random(400) < 0.8, before, rng.random(400) < 0.7)
    value, low, high = change(before, after)
    difference = after.astype(float) - before
    draws = difference[rng.integers(0, 400, (2000, 400))].mean(1)
    assert value == pytest.approx(difference.mean())
    assert (low, high) == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=0.01)  # both of 2,000 draws
    assert change(before, before) == (0.0, 0.0, 0.0)


def test_without_a_prior_the_answers_are_the_models_own(llava, table, tmp_path):
    out = printed("answer", table, "--predictor", llava, "--out", tmp_path / "rows.parquet", "--batch-size", "3")
    data, answerer = load_questions(table), load_answerer(str(llava))
    assert [row["id"] for row in out["rows"]] == list(data.ids)
    for row, question in zip(out["rows"], data, strict=True):
        expected = answerer(question.image[None], [question.question], [question.choices])[0].exp()
        assert row["before_probabilities"] == pytest.approx(expected.tolist(), abs=1e-4)
        assert row["before"] == question.choices[expected.argmax()]
        assert (row["truth"], row["kind"]) == (question.answer, question.kind)
    groups = {row["group"]: row for row in out["accuracies"]}
    assert {name: row["n"] for name, row in groups.items()} == {"all": 8, "colour": 4, "side": 4}
    assert groups["all"]["value"] == sum(row["before"] == row["truth"] for row in out["rows"]) / 8
    assert sorted(row["id"] for row in pq.read_table(tmp_path / "rows.parquet").to_pylist()) == sorted(data.ids)


def test_purified_images_of_corrupted_ones(llava, prior, table):
    """And both answers' sum, whatever the batch."""
    options = ["--predictor", llava, "--prior", prior, *SHORT, "--shift", "noise", "--severity", "3", "--seed", "5"]
    rows = printed("answer", table, *options)["rows"]
    single = printed("answer", table, *options, "--batch-size", "1")["rows"]
    data, answerer = load_questions(table), load_answerer(str(llava))
    own = {"form": "estimate", "border": "inside", "bounded": False}  # the small preset's
    choices = {"start": 300, "steps": 2, "weight": 0.3, **own}
    cleaning = purification("dda", choices, answerer, load_prior(str(prior)))
    for row, other, question in zip(rows, single, data, strict=True):
        corrupted = shift(question.image, "noise", 3, 5, question.id)
        clean = cleaning.purifier([corrupted], [question.id], 5)
        said = [answerer(x, [question.question], [question.choices])[0].exp() for x in (corrupted[None], clean)]
        assert row["before_probabilities"] == pytest.approx(said[0].tolist(), abs=1e-4)
        assert row["purified_probabilities"] == pytest.approx(said[1].tolist(), abs=1e-4)
        assert row["after_probabilities"] == pytest.approx(((said[0] + said[1]) / 2).tolist(), abs=1e-4)
        assert row["nfe_forward"] == 2
        assert other["after_probabilities"] == pytest.approx(row["after_probabilities"], abs=1e-4)


def test_questions_that_cannot_be_answered_are_rows_with_an_error(llava, tmp_path):
    image = {"bytes": picture((9, 9, 9), "left"), "path": None}
    good = {"id": "a", "image": image, "question": SIDE, "answer": "left", "choices": list(SIDES)}
    rows = [good, {**good, "id": "b", "question": "which color?"}, {**good, "id": "c", "choices": []}]
    rows += [{**good, "id": "d", "image": {"bytes": b"nothing", "path": None}}]
    table = question_table(tmp_path / "o.parquet", rows)
    result = run("answer", table, "--predictor", llava, "--json", "--strict")
    assert result.exit_code == 1
    errors = {row["id"]: row["error"] for row in json.loads(result.stdout)["rows"]}
    assert errors["a"] is None
    assert "'color' (nearest" in errors["b"]
    assert "no choices" in errors["c"]
    assert errors["d"]


def test_an_interrupted_command_goes_on(llava, table, tmp_path, monkeypatch):
    import diffcern.run.answer as module

    original, seen = module._rows, []

    def stopping(asked, *rest):
        seen.append([question.id for question in asked])
        if len(seen) == 2:
            raise KeyboardInterrupt
        return original(asked, *rest)

    options = ["--predictor", llava, "--out", tmp_path / "rows.json", "--batch-size", "4", "--device", "cpu"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "_rows", stopping)
        assert run("answer", table, *options).exit_code == 130
    assert run("answer", table, *options).exit_code == 0
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shift", "fig"], "unknown shift 'fig'. Did you mean 'fog'"),
        (["--shift", "fog"], "--severity 1 to 5"),
        (["--severity", "2"], "clean with 2"),
        (["--out", "rows.csv"], "CSV has no form"),
        (["--prior", "PRIOR", "--method", "gda"], "--method is one of diffpure, dda, sda"),
        (["--set", "steps=2"], "give --prior too"),
        (["--prior", "PRIOR", "--set", "skip=0.9"], "leave skip out"),
        (["--prior", "PRIOR", "--method", "sda"], "sda needs aligned"),
        (["--prior", "PRIOR", "--method", "sda", "--set", "aligned=/tmp"], "not made by `diffcern align`"),
    ],
)
def test_what_does_not_fit(llava, prior, table, arguments, message):
    arguments = [str(prior) if argument == "PRIOR" else argument for argument in arguments]
    error = run("answer", table, "--predictor", llava, *arguments).exception
    assert isinstance(error, UsageError)
    assert message in str(error)


# alignment


def test_captions_answer_their_questions():
    """What is asked of a caption is asked of scenes in the same words, and answered so of every scene that it fits."""
    told = drawings_of("embedded:scenes/validation", 12, 0)
    scenes = load_dataset("embedded:scenes/validation")
    rows = {id: row for row, id in enumerate(scenes.ids)}
    asked_of_scenes, kinds = set(), set()
    for item in told:
        scene = scenes.scene(rows[item.id])
        assert item.caption in {statement.text for statement in statements(scene)}
        truth = {text[:3] for seed in range(20) for kind in QUESTION_KINDS if (text := ask(scene, kind, seed))}
        known = {question: answer for question, answer, _ in truth}
        assert item.questions
        for question, answer, choices, kind in item.questions:
            kinds.add(kind)
            assert answer in choices
            if question in known:  # not where another thing looks so, which the caption does not name
                assert (question, answer, choices) in truth
                asked_of_scenes.add(kind)
    assert kinds == asked_of_scenes == {"colour", "shape", "side", "distance"}
    assert [item.id for item in drawings_of("embedded:scenes/validation", 3, 0)] == [item.id for item in told[:3]]
    for name in ("embedded:digits", "somewhere"):
        with pytest.raises(UsageError, match=r"embedded:scenes/train or FILE\.parquet"):
            drawings_of(name, 1, 0)


def test_a_relation_is_asked_about_both_ways():
    scene = load_dataset("embedded:scenes/validation").scene(
        next(k for k in range(50) if any(s.relation in OPPOSITE for s in scene_statements(k)))
    )
    statement = next(said for said in statements(scene) if said.relation in OPPOSITE)
    pair = [text for text in answered_by(statement) if text[3] in ("side", "distance")]
    assert len(pair) == 2
    assert {text[1] for text in pair} == set(pair[0][2])
    assert holds(scene, statement)


def scene_statements(k):
    return statements(load_dataset("embedded:scenes/validation").scene(k))


@pytest.fixture
def captions(tmp_path):
    """Two captions in the words that both tiny models know, and what is asked about their images."""
    rows = []
    for name in list(COLOURS)[:2]:
        rows += [
            {"caption": f"a {name} cube", "question": "what colour is it?", "answer": name, "choices": list(COLOURS)},
            {"caption": f"a {name} cube", "question": SIDE, "answer": "left", "choices": list(SIDES)},
        ]
    question_table(tmp_path / "captions.parquet", rows)
    return tmp_path / "captions.parquet"


def test_captions_of_a_table_are_a_seeded_choice(tmp_path):
    rows = [{"caption": f"{k}", "question": "q?", "answer": "a", "choices": ["a", "b"]} for k in range(40)]
    question_table(tmp_path / "many.parquet", rows)
    few, again, other = (
        [told.caption for told in drawings_of(str(tmp_path / "many.parquet"), 6, seed)] for seed in (0, 0, 1)
    )
    assert few == again
    assert len({*few}) == 6
    assert few != other
    all_of_them = [told.caption for told in drawings_of(str(tmp_path / "many.parquet"), 80, 0)]
    assert all_of_them[:6] == few
    assert sorted(all_of_them) == sorted(2 * [row["caption"] for row in rows])


@pytest.fixture
def aligned(llava, prior, captions, tmp_path):
    def run_into(out, *changes):
        models = ["--predictor", llava, "--generator", prior, "--prior", prior, "--captions", captions, "--count", "5"]
        short = ["--generator-steps", "2", "--epochs", "3", "--learning-rate", "1e-3", "--batch-size", "2"]
        return run("align-answerer", *models, *short, *SHORT, "-o", tmp_path / out, *changes)

    return run_into


def test_from_the_stages_to_an_answer(aligned, llava, prior, table, tmp_path):
    result = aligned("out")
    assert result.exit_code == 0, result.output + repr(result.exception)
    out = tmp_path / "out"
    assert "validation loss" in result.output
    names = {f"{k:06d}.png" for k in range(5)}
    assert {path.name for path in (out / "generated").iterdir()} == names
    assert {path.name for path in (out / "aligned").iterdir()} == names
    rows = pq.read_table(out / "questions.parquet").to_pylist()
    assert [row["image"] for row in rows] == [f"{k:06d}" for k in range(5) for _ in range(2)]
    assert rows[2]["caption"] == "a blue cube"
    assert not (out / "predictor" / "checkpoint.pt").exists()
    model = load_prior(str(prior))
    drawn = sample(model, ["000001"], model.prompts(["a blue cube"]), steps=2, solver="ddim", seed=0)
    image = decode(out / "generated" / "000001.png", "000001")
    assert torch.allclose(image, model.decode(drawn)[0], atol=1 / 255)
    before, after = load_answerer(str(llava)), load_answerer(str(out / "predictor"))
    changed = {
        name.split(".")[1]
        for (name, old), new in zip(before.model.state_dict().items(), after.model.state_dict().values(), strict=True)
        if not torch.equal(old, new)
    }
    assert changed <= {"multi_modal_projector", "language_model", "weight"}  # lm_head.weight
    settings = ["--predictor", llava, "--prior", prior, "--device", "cpu", "--method", "sda"]
    answers = printed("answer", table, *settings, "--set", f"aligned={out}")["rows"]
    question = load_questions(table)[0]
    cleaning = purification("sda", {"aligned": str(out)}, before, model)
    clean = cleaning.purifier([question.image], [question.id], 0)
    said = [
        network(images, [question.question], [question.choices])[0].exp()
        for network, images in ((before, question.image[None]), (after, clean))
    ]
    assert answers[0]["after_probabilities"] == pytest.approx((sum(said) / 2).tolist(), abs=1e-4)
    again = aligned("out")
    assert again.exit_code == 0
    assert "validation loss" not in again.output  # nothing was done again
    assert "options.start was 300" in str(aligned("out", "--set", "start=200").exception)
    other = load_answerer(str(llava))
    next(other.parameters()).data.add_(1.0)
    with pytest.raises(UsageError, match="aligned with the predictor"):
        purification("sda", {"aligned": str(out)}, other, model)
    (out / "predictor" / "config.json").unlink()
    with pytest.raises(DiffcernError, match="is not finished"):
        purification("sda", {"aligned": str(out)}, before, model)


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["generating", "purifying", "tuning"])
def test_an_interrupted_alignment_ends_like_a_whole_one(aligned, tmp_path, monkeypatch, stop):
    assert aligned("whole").exit_code == 0
    original_fill, original_loss, calls = making.fill, stages.answer_loss, []

    def fill(folder, stage, ids, make, executor, batch_size, report):
        def stopping(done):
            report(done)
            if done and stop == {"generated": "generating", "aligned": "purifying"}[stage]:
                raise KeyboardInterrupt

        original_fill(folder, stage, ids, make, executor, batch_size, stopping)

    def loss(*arguments, **options):
        calls.append(1)
        if stop == "tuning" and len(calls) == 2:
            raise KeyboardInterrupt
        return original_loss(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(making, "fill", fill)
        patch.setattr(stages, "answer_loss", loss)
        result = aligned("halves")
        assert result.exit_code == 130
        assert "run the same command to continue" in result.output
    assert aligned("halves").exit_code == 0
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert len(files) > 10 + 3
    for file in files:
        assert (tmp_path / "halves" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_without_resynthesis(aligned, tmp_path):
    assert aligned("out", "--skip-resynthesis").exit_code == 0
    assert not (tmp_path / "out" / "aligned").exists()
    assert not read_alignment(tmp_path / "out").resynthesis


def test_a_loss_that_only_rises_leaves_the_weights(aligned, llava, tmp_path, monkeypatch):
    losses = iter(range(1, 100))
    monkeypatch.setattr(stages, "loss_on", lambda *_: float(next(losses)))
    result = aligned("out")
    assert "1.000 before, 1.000 after epoch 0, which is kept" in result.output
    kept, before = load_answerer(str(tmp_path / "out" / "predictor")), load_answerer(str(llava))
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), before.parameters(), strict=True))


def test_what_does_not_align(aligned, llava, tmp_path):
    for changes, message in (
        (["--method", "gda"], "--method is one of diffpure, dda,"),
        (["--set", "ensemble=none"], "ensemble: options of `diffcern answer --method sda`"),
        (["--generator", "embedded:digits"], "does not read captions"),
        (["--captions", "embedded:scenes/validation", "--count", "501"], "tells of 500 scenes, not 501"),
    ):
        error = aligned("out", *changes).exception
        assert isinstance(error, UsageError)
        assert message in str(error)
    question_table(tmp_path / "bad.parquet", [{"caption": "a", "question": "b?", "answer": "c", "choices": ["d"]}])
    assert "choices that hold the answer" in str(aligned("out", "--captions", tmp_path / "bad.parquet").exception)
    assert not (tmp_path / "out").exists()
