"""`diffcern purify` as a user runs it."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from diffcern import jobs
from diffcern.cli import app
from diffcern.data import decode, encode_png, load_dataset
from diffcern.errors import DiffcernError, UsageError
from diffcern.run.purify import file_names

SHORT = ["--prior", "embedded:digits", "--steps", "3", "--set", "weight=0.3"]


@pytest.fixture
def images(tmp_path):
    """Three digits in a nested folder, one of them in two formats, and a file that is no image."""
    data, folder = load_dataset("embedded:digits"), tmp_path / "images" / "nested"
    folder.mkdir(parents=True)
    for k in range(3):
        (folder / f"{k}.png").write_bytes(encode_png(data[k].image))
    Image.open(folder / "0.png").resize((40, 30)).save(folder / "0.jpg")
    (tmp_path / "images" / "broken.png").write_bytes(b"nothing")
    return tmp_path / "images"


def run(*arguments):
    return CliRunner().invoke(app, ["purify", *map(str, arguments)], catch_exceptions=True)


def test_files_are_named_after_their_inputs_and_made_once(images, tmp_path):
    out = tmp_path / "out"
    result = run(images, *SHORT, "-o", out)
    assert result.exit_code == 0, result.output
    assert "4 images purified" in result.output
    assert "1 skipped" in result.output
    made = {str(path.relative_to(out)) for path in out.rglob("*.png")}
    assert made == {"nested/0.png.png", "nested/0.jpg.png", "nested/1.png", "nested/2.png", "before-after.png"}
    assert Image.open(out / "nested" / "1.png").size == (16, 16)
    before = {path: path.read_bytes() for path in out.rglob("*.png")}
    (out / "nested" / "1.png").unlink()
    again = run(images, *SHORT, "-o", out, "--batch-size", "1", "--strict")
    assert again.exit_code == 1  # the broken one
    assert "1 images purified" in again.output
    assert {path: path.read_bytes() for path in out.rglob("*.png")} == before
    assert json.loads((out / "purify.json").read_text())["seed"] == 0


@pytest.mark.parametrize(("arguments", "size"), [([], (16, 16)), (["--view", "whole"], (40, 30))])
def test_the_centre_or_the_whole(images, tmp_path, arguments, size):
    """Of a wide image the centre square, in the prior's resolution, or all of it, undistorted."""
    assert run(images / "nested" / "0.jpg", *SHORT, "-o", tmp_path / "out", *arguments).exit_code == 0
    assert Image.open(tmp_path / "out" / "0.png").size == size
    other = run(
        images / "nested" / "0.jpg", *SHORT, "-o", tmp_path / "out", "--view", "whole" if not arguments else "centre"
    )
    assert isinstance(other.exception, DiffcernError)


def test_other_settings_are_refused(images, tmp_path):
    assert run(images, *SHORT, "-o", tmp_path / "out").exit_code == 0
    other = run(images, *SHORT, "--seed", "1", "-o", tmp_path / "out")
    assert isinstance(other.exception, DiffcernError)
    assert "purified otherwise" in str(other.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "copies=4"], "copies: options of answers to purified images"),
        (["--method", "tent"], "--method is one of diffpure, dda, gda"),
        (["--method", "gda"], "give --predictor"),
        (["--solver", "dpm"], "unknown solver 'dpm'"),
        (["--start", "1000"], "0 to 999, not 1000"),
        (["--start", "10", "--steps", "12"], r"steps are 1 to start \+ 1 = 11"),
        (["--set", "wieght=1"], "unknown option of dda 'wieght'"),
        (["--view", "center"], "unknown view 'center'. Did you mean 'centre'"),
    ],
)
def test_what_does_not_fit(images, tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        raise run(images, "--prior", "embedded:digits", "-o", tmp_path / "out", *arguments).exception
    assert not (tmp_path / "out").exists()


def test_ids_stay_below_the_folder():
    names = file_names(["../../etc/passwd", "/abs/x.png", "a/b.jpg", "a/b.png", "7"])
    assert [str(name) for name in names.values()] == [
        "etc/passwd.png",
        "abs/x.png",
        "a/b.jpg.png",
        "a/b.png.png",
        "7.png",
    ]


def test_other_images_of_the_same_names_are_refused(images, tmp_path):
    out, image = tmp_path / "out", images / "nested" / "1.png"
    assert run(images, *SHORT, "-o", out).exit_code == 0
    image.write_bytes((images / "nested" / "2.png").read_bytes())
    result = run(images, *SHORT, "-o", out)
    assert isinstance(result.exception, DiffcernError)
    assert "other images of the same names came to (nested/1.png)" in str(result.exception)
    (out / "nested" / "1.png").unlink()
    (out / "sources.jsonl").write_text((out / "sources.jsonl").read_text()[:-20])  # torn; older folders have none
    assert run(images, *SHORT, "-o", out).exit_code == 0


def test_nothing_is_written_among_the_images(images, tmp_path):
    for out in (images, images / "nested"):
        result = run(images, *SHORT, "-o", out)
        assert isinstance(result.exception, UsageError)
        assert "where the images are" in str(result.exception)
    assert not (images / "purify.json").exists()


def test_a_damaged_result_is_named(images, tmp_path):
    out = tmp_path / "out"
    assert run(images, *SHORT, "-o", out).exit_code == 0
    (out / "nested" / "1.png").write_bytes(b"")
    result = run(images, *SHORT, "-o", out)
    assert f"{out}/nested/1.png is damaged" in str(result.exception)
    assert "delete it" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "steps=5"], "steps was given twice"),
        (["--predictor", "embedded:digits"], "--predictor: only for gda"),
    ],
)
def test_what_would_be_passed_over_is_refused(images, tmp_path, arguments, message):
    result = run(images, *SHORT, "-o", tmp_path / "out", *arguments)
    assert message in str(result.exception) + result.output


@pytest.mark.parametrize(("form", "suffix"), [("webdataset", ".tar"), ("parquet", ".parquet")])
def test_shards(tmp_path, monkeypatch, form, suffix):
    """The same images as in files, read again as data; a shard that was deleted is made again, of the same bytes."""
    monkeypatch.setattr("diffcern.run.parts.PART", 4)
    pictures, digits_ = tmp_path / "pictures", load_dataset("embedded:digits")
    for place in range(6):
        (pictures / f"{place % 2}").mkdir(parents=True, exist_ok=True)
        (pictures / f"{place % 2}" / f"{place}.x.png").write_bytes(encode_png(digits_[place].image))
    (pictures / "1" / "torn.png").write_bytes(b"torn")
    how = {"prior": "embedded:digits", "device": "cpu", "options": {"steps": 2}}
    asked = {"images": f"imagefolder:{pictures}", **how}
    plain = jobs.Purify(**asked).carry_out(tmp_path / "files")
    whole = jobs.Purify(**asked, form=form).carry_out(tmp_path / "whole")
    assert (whole.made, whole.skipped, plain.made) == (6, 1, 6)
    assert whole.sheet.is_file()
    again = jobs.Purify(**asked, form=form).carry_out(tmp_path / "whole")
    assert (again.made, again.there, again.skipped) == (0, 6, 1)
    shards = sorted((tmp_path / "whole").glob(f"part-*{suffix}"))
    assert len(shards) == 2
    data = load_dataset(f"{form}:{tmp_path / 'whole'}")
    by_name = {Path(id).name[0]: row for row, id in enumerate(data.ids)}
    for place in range(6):
        made = data[by_name[str(place)]]
        assert torch.equal(made.image, decode(tmp_path / "files" / f"{place % 2}" / f"{place}.x.png", "x"))
        assert made.target == place % 2
    with pytest.raises(DiffcernError, match="holds shards"):
        jobs.Purify(**asked).carry_out(tmp_path / "whole")
    bytes_before = shards[1].read_bytes()
    shards[1].write_bytes(bytes_before[:-100])
    with pytest.raises(DiffcernError, match=r"part-000001\.\w+ is not as it was written: delete it"):
        jobs.Purify(**asked, form=form).carry_out(tmp_path / "whole")
    shards[1].unlink()
    assert jobs.Purify(**asked, form=form).carry_out(tmp_path / "whole").made == 2  # and one was skipped
    assert shards[1].read_bytes() == bytes_before
