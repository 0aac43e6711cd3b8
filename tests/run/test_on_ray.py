"""Work on a Ray cluster: workers that die are replaced, what they died of is set aside, and nothing is done twice."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from diffcern.errors import DiffcernError, UsageError
from diffcern.run import on_ray
from diffcern.run.on_ray import OnRay

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'diffcern[ray]'")


@dataclass(frozen=True)
class Squares:
    """deadly: pieces that kill whoever does them, `times` times each; raises: one that is an error."""

    folder: str
    deadly: tuple[int, ...] = ()
    times: int = 100
    raises: int = -1

    def __call__(self):
        return self.work

    def work(self, piece):
        marks = Path(self.folder)
        if piece in self.deadly and len(list(marks.glob(f"{piece}-*"))) < self.times:
            (marks / f"{piece}-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if piece == self.raises:
            raise DiffcernError(f"piece {piece} is broken")
        return piece**2, os.getpid()


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # tests are not installed where the work is done


def done_by(executor, work, pieces, lost=None):
    done = []
    executor.map(work, pieces, lambda piece, result: done.append((piece, *result)), lost)
    return done


@pytest.mark.slow
def test_workers_elsewhere_do_every_piece_once(cluster, tmp_path):
    done = done_by(OnRay(workers=2), Squares(str(tmp_path)), [3, 1, 2, 5, 8, 9])
    assert sorted(row[:2] for row in done) == [(1, 1), (2, 4), (3, 9), (5, 25), (8, 64), (9, 81)]
    assert os.getpid() not in {row[2] for row in done}


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(cluster, tmp_path):
    done = done_by(OnRay(workers=2), Squares(str(tmp_path), deadly=(2, 5), times=1), list(range(8)))
    assert sorted(row[:2] for row in done) == [(k, k**2) for k in range(8)]


@pytest.mark.slow
def test_what_workers_die_of_is_set_aside(cluster, tmp_path):
    lost = []
    done = done_by(OnRay(workers=2), Squares(str(tmp_path), deadly=(2,)), [1, 2, 3], lambda *row: lost.append(row))
    assert sorted(row[0] for row in done) == [1, 3]
    assert [piece for piece, _ in lost] == [2]
    assert "3 workers died of it" in lost[0][1]
    assert len(list(tmp_path.glob("2-*"))) == on_ray.TRIES
    with pytest.raises(DiffcernError, match="3 workers died of the same piece of work, 2"):
        done_by(OnRay(workers=1), Squares(str(tmp_path), deadly=(2,)), [2])


@pytest.mark.slow
def test_workers_that_cannot_live_are_given_up(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "STILLBORN", 4)
    lost = []
    everything = tuple(range(20))
    with pytest.raises(DiffcernError, match=r"4 workers died one after the other.*run again with fewer workers"):
        done_by(OnRay(workers=2), Squares(str(tmp_path), deadly=everything), everything, lambda *row: lost.append(row))


@pytest.mark.slow
def test_errors_are_raised_here_as_they_are(cluster, tmp_path):
    done = []
    with pytest.raises(DiffcernError, match=r"^piece 2 is broken$"):
        OnRay(workers=1).map(Squares(str(tmp_path), raises=2), [1, 2, 3], lambda piece, result: done.append(piece))
    assert done == [1]


@pytest.mark.slow
def test_room_is_asked_for_before_any_work(cluster, tmp_path):
    for how, message in (
        (
            {"gpus": 1.0},
            r"1 workers of 1 CPUs and 1 GPUs each.* have \(2 CPUs and 0 GPUs\)",
        ),
        ({"workers": 5}, "5 workers of 1 CPUs and 0 GPUs each"),
    ):
        with pytest.raises(UsageError, match=message):
            done_by(OnRay(**how), Squares(str(tmp_path)), [1, 2])
