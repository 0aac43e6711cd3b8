"""What stands behind the page: visitors' questions do not change under them, stop, and wait for their turn."""

import random
import threading

import pytest
import torch
from report.conftest import build_run

from diffcern.data import encode_png, load_dataset
from diffcern.errors import DiffcernError, UsageError

pytest.importorskip("nicegui", reason="no NiceGUI: pip install 'diffcern[app]'")
from diffcern.app.page import _quietly, _some
from diffcern.app.pictures import legend, masks
from diffcern.app.runs import Shelf
from diffcern.app.trial import AT_WORK, Question, Stopped
from diffcern.app.worlds import World, embedded, of_models


@pytest.fixture(scope="module")
def world():
    world = of_models(None, None, None, "classification", "cpu")[0]
    world.load()
    return world


def test_a_question_is_about_what_was_shown_then(world):
    picture = world.picture(3)
    question = Question.of(world, picture, "contrast", 4)
    assert not torch.equal(question.shown, picture.image)
    assert world.right(picture.truth) == world.models.task.class_names.index(picture.truth)
    heard = []
    answer = question.ask("diffusion-classifier", heard.append)
    assert heard[-1].evaluations == answer.evaluations
    assert torch.equal(heard[-1].output, answer.output)
    again = question.ask("diffusion-classifier", heard.append)
    assert torch.equal(answer.output, again.output)
    found, image, evaluations = question.explain([3, 8], 8, lambda found, count: heard.append(count))
    assert (evaluations, heard[-1], len(found.times)) == (16, 16, 8)
    assert image.shape == (3, 16, 16)
    with pytest.raises(DiffcernError, match="one class alone"):
        question.explain([3], 8, lambda found, count: None)


def test_an_answer_on_its_way_grows(world):
    heard = []
    answer = Question.of(world, world.picture(3), "noise", 4).ask("diffusion-tta", heard.append)
    assert answer.trace == heard[-1].trace
    assert [len(now.trace) for now in heard] == sorted(len(now.trace) for now in heard)
    counts = [now.evaluations for now in heard]
    assert counts == sorted(counts)
    assert counts[-1] == answer.evaluations


def test_what_is_told_apart_may_be_changed():
    scenes = next(world for world in embedded("cpu") if world.labels)
    picture = scenes.picture(1)
    assert picture.truth == picture.labels[1]
    question = Question.of(scenes, picture, "clean", 1, picture.labels)
    assert question.world.models.task.class_names == picture.labels
    assert question.world.right(picture.truth) == 1
    assert question.source().output.shape == (2,)
    own = Question.of(scenes, picture, "clean", 1, ("a red cone", "a blue ring", "a green cube"))
    assert own.ask("diffusion-classifier", lambda now: None).output.shape == (3,)
    assert own.world.right(picture.truth) is None
    assert scenes.told(own.world.labels) is own.world
    assert scenes.told(scenes.labels) is scenes
    with pytest.raises(DiffcernError, match="two labels or more"):
        Question.of(scenes, picture, "clean", 1, ("a red cone",))
    with pytest.raises(UsageError, match=r"'ball' \(nearest: .*\)\. It knows the 25 words .* \(a, an, .*yellow\)"):
        Question.of(scenes, picture, "clean", 1, ("a red ball", "a red cone")).source()


def test_it_stops_in_the_middle_and_before_its_turn(world):
    question = Question.of(world, world.picture(3), "clean", 1)

    def heard(now):
        if now.evaluations > 3:
            question.stopping.set()

    with pytest.raises(Stopped):
        question.ask("diffusion-tta", heard)
    with pytest.raises(Stopped):
        question.source()
    assert not AT_WORK.locked()
    waiting = Question.of(world, world.picture(4), "clean", 1)
    with AT_WORK:  # somebody else's turn
        threading.Timer(0.2, waiting.stopping.set).start()
        with pytest.raises(Stopped):
            waiting.source()


def test_pictures_that_cannot_be_read_are_left_out(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(encode_png(load_dataset("embedded:digits")[k].image))
    (tmp_path / "text.png").write_text("words")
    own = World("Yours", str(tmp_path), "embedded:digits", "embedded:digits", device="cpu")
    found, unread = _some(own, random.Random(0))
    assert (len(found), unread) == (3, 1)
    for path in tmp_path.glob("[0-9].png"):
        path.unlink()
    with pytest.raises(DiffcernError, match="none of these pictures can be read"):
        _some(World("Yours", str(tmp_path), "embedded:digits", "embedded:digits", device="cpu"), random.Random(0))


def test_an_error_that_nobody_foresaw_is_a_sentence(caplog):
    def broken():
        raise ZeroDivisionError("by nought")

    found = _quietly(broken)
    assert "that went wrong (ZeroDivisionError: by nought)" in str(found)
    assert "ZeroDivisionError" in caplog.text


def test_a_map_has_a_legend_of_what_is_on_it():
    output = torch.zeros(4, 10, 10)
    output[1], output[3, :3] = 1.0, 2.0
    (first, colour, share), second = legend(output, ["sky", "road", "car", "tree"])
    assert (first, share) == ("road", pytest.approx(0.7))
    assert second[0] == "tree"
    assert masks(output)[:, -1, -1].tolist() == pytest.approx([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def test_links_out_of_the_folder_are_no_runs(tmp_path):
    for name in ("runs/own", "elsewhere/secret"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "spec.toml").touch()
    for name, target in (("link", "elsewhere/secret"), ("inside", "runs/own"), ("all", "elsewhere")):
        (tmp_path / "runs" / name).symlink_to(tmp_path / target, target_is_directory=True)
    assert Shelf(tmp_path / "runs").names() == ["inside", "own"]


def test_a_run_keeps_its_address(tmp_path):
    build_run(tmp_path / "weather", n=3, shifts=("fog",), severities=(3,))
    shelf = Shelf(tmp_path)
    address = shelf.open("weather")
    build_run(tmp_path / "above", n=3, shifts=("fog",), severities=(3,))
    assert shelf.names() == ["above", "weather"]
    assert shelf.open("above") != address == shelf.open("weather")
    with pytest.raises(DiffcernError, match="no such run"):
        shelf.open("../weather")
    shelf.close()
    assert not shelf.place.exists()


def test_models_of_ones_own_come_first_and_whole():
    worlds = of_models("embedded:digits", "embedded:digits", "embedded:digits", "classification", "cpu")
    assert [world.title for world in worlds][:2] == ["Yours", "Digits"]
    with pytest.raises(UsageError, match="take all three"):
        of_models(None, "embedded:digits", None, "classification", "cpu")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--runs", "nowhere"), "--runs nowhere is no folder"),
        (("--labels", "cat"), "two or more to tell apart"),
        (("--labels", "cat,dog"), "models of your own take all three"),
        (("--labels", "sentences.csv"), "names alone"),
        (("--task", "flow"), "--task is one of"),
    ],
)
def test_the_command_refuses_before_it_serves(cli, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sentences.csv").write_text("label,prompt\ncat,a cat\ncat,a kitten\ndog,a dog\n")
    code, _, err = cli("app", "--no-browser", "--port", 8961, *arguments)
    assert code == 2
    assert says in " ".join(err.split())
