"""Commands whose work a Ray cluster does: the same bytes as without it, whatever dies on the way."""

import itertools
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from diffcern import jobs
from diffcern.data import load_dataset
from diffcern.errors import DiffcernError
from diffcern.run import evaluate as evaluating
from diffcern.run.bench import Runner
from diffcern.run.evaluate import evaluate
from diffcern.run.executors import InProcess
from diffcern.run.on_ray import OnRay
from diffcern.run.spec import parse_spec

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'diffcern[ray]'")
pytestmark = pytest.mark.slow
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def files(folder, *kinds):
    """By name, with the bytes."""
    found = itertools.chain(*(folder.rglob(kind) for kind in kinds))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


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


@pytest.fixture
def spec(table):
    """Two entries on one shift: three units each."""
    entries = {name: table["entries"][name] for name in ("source", "diffusion-tta")}
    return parse_spec({**table, "entries": entries, "shifts": {"names": ["noise"], "severities": [3]}})


@pytest.fixture
def whole(spec, tmp_path):
    assert evaluate(spec, tmp_path / "whole", device=torch.device("cpu")) == (True, {})
    return tmp_path / "whole"


def test_a_bench_whose_workers_are_killed_is_the_same(cluster, spec, whole, deadly, tmp_path):
    deadly((41,), 1)
    assert evaluate(spec, tmp_path / "ray", device="cpu", executor=OnRay(workers=2)) == (True, {})
    assert files(tmp_path / "ray", "records/*") == files(whole, "records/*")


class Losing(InProcess):
    """Loses every piece of an entry that has the image 5, as workers do that die of it."""

    def map(self, make, pieces, finished, lost=None):
        fatal = [p for p in pieces if getattr(p, "entry", "") == "diffusion-tta" and p.start <= 5 < p.stop]
        super().map(make, [piece for piece in pieces if piece not in fatal], finished)
        for piece in fatal:
            lost(piece, "3 workers died of it")


def test_an_image_that_workers_die_of_is_set_aside(spec, whole, tmp_path):
    """The other images of its unit have their records, the same as ever."""
    complete, skipped = evaluate(spec, tmp_path / "ray", device="cpu", executor=Losing())
    assert complete
    assert [*skipped.values()] == ["3 workers died of it"]
    found, other = files(tmp_path / "ray", "records/*"), files(whole, "records/*")
    differ = {name for name in other if found[name] != other[name]}
    name = "records/diffusion-tta--noise-3--000000.parquet"
    assert differ == {name}
    rows, every = (pq.read_table(folder / name).to_pylist() for folder in (tmp_path / "ray", whole))
    assert rows == [row for row in every if row["id"] not in skipped]
    assert len(rows) == 19
    assert evaluate(spec, tmp_path / "ray", device="cpu") == (True, skipped)  # it is done, and says so again


def test_a_stream_that_workers_die_of_is_an_error(table, tmp_path):
    spec = parse_spec({**table, "entries": {"diffusion-tta": table["entries"]["tent"]}})
    with pytest.raises(DiffcernError, match=r"diffusion-tta on clean: 3 workers died of it.*run again"):
        evaluate(spec, tmp_path / "ray", device="cpu", executor=Losing())


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


def test_rows_are_the_same(cluster, models, pictures, tmp_path):
    given = {"images": str(pictures), "prior": models["prior"], "options": {"draws": 4, "stop": ""}}
    tables = []
    for name, how in (("one", {"workers": 1}), ("two", {"ray": "local"})):
        table = jobs.make(jobs.Classify, {**given, **how}).carry_out(tmp_path / f"{name}.json")
        assert table.skipped == 1
        tables.append(sorted(({**row, "seconds": 0} for row in table.rows), key=lambda row: row["id"]))
    assert tables[0] == tables[1]


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
    """Also where a part of them is there, made without Ray."""
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
