"""Commands whose work a Ray cluster does: the same bytes as without it, whatever dies on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from diffcern import jobs
from diffcern.data import load_dataset
from diffcern.run import evaluate as evaluating
from diffcern.run.bench import Runner
from diffcern.run.evaluate import evaluate
from diffcern.run.on_ray import OnRay
from run.conftest import files

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'diffcern[ray]'")
pytestmark = pytest.mark.slow
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class Deadly:
    """Kills whoever does a unit that has an image in `deadly`, so many times; then does it."""

    runner: Runner
    folder: str
    deadly: tuple[int, ...]
    times: int

    def __call__(self):
        work, marks = self.runner(), Path(self.folder)

        def do(piece: Any) -> Any:
            span = range(getattr(piece, "start", 0), getattr(piece, "stop", 0))
            if set(self.deadly) & set(span) and getattr(piece, "entry", "") == "diffusion-tta":
                mark = marks / f"{piece.name}-{piece.stop}"
                mark.mkdir(exist_ok=True)
                if len(list(mark.iterdir())) < self.times:
                    (mark / str(os.getpid())).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            return work(piece)

        return do


@pytest.fixture
def deadly(monkeypatch, tmp_path):
    def install(images, times):
        (tmp_path / "marks").mkdir()
        made = lambda *given: Deadly(Runner(*given), str(tmp_path / "marks"), images, times)  # noqa: E731
        monkeypatch.setattr(evaluating, "Runner", made)

    return install


def test_a_bench_whose_workers_are_killed_is_the_same(cluster, short, short_run, deadly, tmp_path):
    deadly((41,), 1)
    assert evaluate(short, tmp_path / "ray", device="cpu", executor=OnRay(workers=2)) == (True, {})
    assert files(tmp_path / "ray", "records/*") == files(short_run, "records/*")


@pytest.fixture
def pictures(tmp_path):
    """A folder of 25 digits, and one file that is none."""
    from torchvision.utils import save_image

    data = load_dataset("embedded:digits/validation")
    (tmp_path / "pictures").mkdir()
    for row in range(25):
        save_image(data[row].image, tmp_path / "pictures" / f"{row:02}.png")
    (tmp_path / "pictures" / "none.png").write_bytes(b"no image")
    return tmp_path / "pictures"


def rows_of(job, given, out, skipped=0):
    """Of both ways, without their seconds."""
    tables = []
    for name, how in (("one", {"workers": 1}), ("two", {"ray": "local"})):
        table = jobs.make(job, {**given, **how}).carry_out(out / f"{name}.json")
        assert table.skipped == skipped
        tables.append(sorted(({**row, "seconds": 0} for row in table.rows), key=lambda row: row["id"]))
    return tables


def test_rows_are_the_same(cluster, models, pictures, tmp_path):
    given = {"images": str(pictures), "prior": models["prior"], "options": {"draws": 4, "stop": ""}}
    one, two = rows_of(jobs.Classify, given, tmp_path, skipped=1)
    assert one == two
    given = {"images": str(pictures), **models, "options": {"draws": 2, "steps": 1}}
    one, two = rows_of(jobs.Adapt, given, tmp_path / "adapted", skipped=1)
    assert one == two


def test_pairs_and_questions_are_the_same(cluster, tmp_path):
    given = {"pairs": "embedded:scenes", "predictor": "embedded:scenes-clip"}
    one, two = rows_of(jobs.Match, given, tmp_path / "match")
    assert one == two
    given = {"questions": "embedded:scenes", "predictor": "embedded:scenes-answerer"}
    one, two = rows_of(jobs.Answer, given, tmp_path / "answer")
    assert one == two


def test_a_command_starts_a_cluster_of_its_own_and_ends_it(models, pictures, tmp_path):
    command = [sys.executable, "-m", "diffcern", "classify", pictures, "--prior", models["prior"], "--set", "draws=2"]
    command += ["--set", "stop=", "--ray", "local", "--workers", "1", "--out", tmp_path / "rows.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 26


def test_a_stream_is_one_piece(cluster, models, pictures, tmp_path):
    given = {"images": str(pictures), "predictor": models["predictor"], "method": "tent", "batch_size": 5}
    tables = []
    for name, how in (("one", {"workers": 1}), ("two", {"ray": "local", "workers": 1})):
        job = jobs.make(jobs.Adapt, {**given, "online": True, **how})
        table = job.carry_out(tmp_path / f"{name}.json")
        tables.append(sorted(({**row, "seconds": 0} for row in table.rows), key=lambda row: row["id"]))
    assert tables[0] == tables[1]


def test_purified_images_are_the_same(cluster, models, pictures, tmp_path):
    given = {"images": str(pictures), "prior": models["prior"], "method": "dda"}
    for name, how in (("one", {"workers": 1}), ("two", {"ray": "local", "workers": 1})):
        made = jobs.make(jobs.Purify, {**given, **how}).carry_out(tmp_path / name)
        assert made.skipped == 1
    assert files(tmp_path / "one", "*.png", "purify.json") == files(tmp_path / "two", "*.png", "purify.json")
    lines = [sorted((tmp_path / name / "sources.jsonl").read_text().splitlines()) for name in ("one", "two")]
    assert lines[0] == lines[1]


def test_aligned_images_are_the_same(cluster, models, tmp_path):
    """Also where a part of them is there, made without Ray, and whatever threads the driver has."""
    torch.set_num_threads(2)
    given = {"predictor": models["predictor"], "generator": models["prior"], "prior": models["prior"]}
    given |= {"per_class": 3, "epochs": 1, "generator_steps": 2, "batch_size": 4}
    for name, how in (("one", {"workers": 1}), ("two", {"ray": "local", "workers": 1})):
        if name == "two":
            (tmp_path / "two").mkdir()
            shutil.copy(tmp_path / "one" / "align.json", tmp_path / "two")
            shutil.copytree(tmp_path / "one" / "generated" / "3", tmp_path / "two" / "generated" / "3")
        jobs.make(jobs.Align, {**given, **how}).carry_out(tmp_path / name)
    assert files(tmp_path / "one", "*.png") == files(tmp_path / "two", "*.png")
    assert files(tmp_path / "one", "*.safetensors") == files(tmp_path / "two", "*.safetensors")
