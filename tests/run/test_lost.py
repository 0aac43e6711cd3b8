"""What workers die of again and again is set aside, and nothing else with it."""

import pyarrow.parquet as pq
import pytest

from diffcern.errors import DiffcernError
from diffcern.jobs.spread import piecewise
from diffcern.run.evaluate import evaluate
from diffcern.run.executors import InProcess
from diffcern.run.spec import parse_spec
from run.conftest import files


def of_image_five(piece):
    """Whether a bench's piece of the entry diffusion-tta has that image."""
    return getattr(piece, "entry", "") == "diffusion-tta" and piece.start <= 5 < piece.stop


class Losing(InProcess):
    """Loses every piece that is `fatal`, as workers do that die of it."""

    def __init__(self, fatal=of_image_five):
        self.fatal = fatal

    def map(self, make, pieces, finished, lost=None):
        fatal = [piece for piece in pieces if self.fatal(piece)]
        super().map(make, [piece for piece in pieces if piece not in fatal], finished)
        for piece in fatal:
            lost(piece, "3 workers died of it")


@pytest.mark.slow
def test_an_image_that_workers_die_of_is_set_aside(short, short_run, tmp_path):
    """The other images of its unit have their records, the same as ever."""
    complete, skipped = evaluate(short, tmp_path / "ray", device="cpu", executor=Losing())
    assert complete
    assert [*skipped.values()] == ["3 workers died of it"]
    found, other = files(tmp_path / "ray", "records/*"), files(short_run, "records/*")
    differ = {name for name in other if found[name] != other[name]}
    name = "records/diffusion-tta--noise-3--000000.parquet"
    assert differ == {name}
    rows, every = (pq.read_table(folder / name).to_pylist() for folder in (tmp_path / "ray", short_run))
    assert rows == [row for row in every if row["id"] not in skipped]
    assert len(rows) == 19
    assert evaluate(short, tmp_path / "ray", device="cpu") == (True, skipped)  # it is done, and says so again


@pytest.mark.slow
def test_a_stream_that_workers_die_of_is_an_error(table, tmp_path):
    spec = parse_spec({**table, "entries": {"diffusion-tta": table["entries"]["tent"]}})
    with pytest.raises(DiffcernError, match=r"diffusion-tta on clean: 3 workers died of it.*run again"):
        evaluate(spec, tmp_path / "ray", device="cpu", executor=Losing())


def test_rows_that_workers_die_of_are_set_aside_alone():
    ids, rows = [f"image-{k}" for k in range(45)], []
    make = lambda: lambda places: [{"id": ids[place], "error": None} for place in places]  # noqa: E731
    piecewise(Losing(lambda piece: 30 in piece), make, [range(45)], ids, rows.append)
    assert sorted(row["id"] for row in rows) == sorted(ids)
    assert [row for row in rows if row["error"]] == [{"id": "image-30", "error": "3 workers died of it"}]
    with pytest.raises(DiffcernError, match="one image depends on another here: run again"):
        piecewise(Losing(lambda piece: 30 in piece), make, [range(45)], ids, rows.append, alone=False)
