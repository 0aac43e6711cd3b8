"""What is said and done about a Ray cluster where there is none: no test here needs Ray."""

import socket
import sys
from collections import deque
from contextlib import nullcontext
from threading import Thread
from types import SimpleNamespace

import pytest
import torch

from diffcern import jobs
from diffcern.errors import DiffcernError, UsageError
from diffcern.run import on_ray
from diffcern.run.on_ray import OnRay, Pool, check_answers


def test_ray_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"--ray needs Ray: pip install 'diffcern\[ray\]'"):
        OnRay().map(lambda: None, [1], lambda piece, result: None)


def test_addresses_that_nobody_answers_at():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(UsageError, match=f"no Ray cluster answers at 127.0.0.1:{port}"):
        check_answers(f"127.0.0.1:{port}")
    for address in ("somewhere", "host:", ":6379", "host:port", "127.0.0.1:99999999"):
        with pytest.raises(UsageError, match=r"--ray takes local, auto or HOST:PORT|no Ray cluster answers"):
            check_answers(address)


def test_an_address_that_takes_calls_and_says_nothing(monkeypatch):
    """Ray itself waits for a minute and more."""
    monkeypatch.setattr(on_ray, "CONNECT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "{}:{}".format(*silent.getsockname())
        with pytest.raises(UsageError, match=f"no Ray cluster answers at {address}: timed out"):
            check_answers(address)


def test_an_address_of_something_else():
    for reply, message in (
        (bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]), ""),
        (b"HTTP/1.1 400", "something else"),
        (b"", "else"),
    ):
        with socket.create_server(("127.0.0.1", 0)) as server:
            answering = Thread(target=answer, args=(server, reply))
            answering.start()
            with pytest.raises(UsageError, match=message) if message else nullcontext():
                check_answers("{}:{}".format(*server.getsockname()))
            answering.join()


def answer(server, reply):
    caller, _ = server.accept()
    with caller:
        assert caller.recv(100).startswith(b"PRI")
        caller.sendall(reply)


class ClusterError(Exception):
    """What Ray raises."""


class WorkError(ClusterError):
    """What it raises of an error in the work. cause: that error."""

    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class FakeRay:
    """Answers in the order in which it is asked. troubles: what is raised of a piece, one after the other."""

    exceptions = SimpleNamespace(RayTaskError=WorkError, RayError=ClusterError, AuthenticationError=PermissionError)

    def __init__(self, **troubles):
        self.troubles = {piece: list(raised) for piece, raised in troubles.items()}
        self.killed, self.hired = [], 0

    def wait(self, promises, num_returns, timeout):
        return promises[:1], promises[1:]

    def kill(self, worker):
        self.killed.append(worker)

    def get(self, promise):
        if waiting := self.troubles.get(promise.piece):
            raise waiting.pop(0)
        return promise.piece

    def hire(self):
        self.hired += 1
        asked = SimpleNamespace(remote=Promise)
        return SimpleNamespace(ready=asked, do=asked)


class Promise:
    """What a worker was asked; its answer is the piece."""

    def __init__(self, piece=""):
        self.piece = piece


def run(fake, pieces, finished, lost=None):
    Pool(fake, fake.hire, finished, lost, on_ray.unheard, deque(enumerate(pieces))).run(2)


def test_a_piece_that_a_worker_died_of_is_the_next_one():
    """A bench writes nothing before its first piece is done: at the end of the queue, a kill would lose everything."""
    fake, done = FakeRay(open=[ClusterError("died")]), []
    run(fake, ["open", *"01234567"], lambda piece, result: done.append(piece))
    assert done.index("open") <= 2
    assert sorted(done) == [*"01234567", "open"]
    assert fake.killed


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")])
def test_a_worker_that_is_out_of_memory_is_replaced_and_its_piece_set_aside(error):
    fake, done, lost = FakeRay(big=[WorkError(error)] * on_ray.TRIES), [], []
    run(fake, ["big", "a", "b"], lambda piece, result: done.append(piece), lambda *given: lost.append(given))
    assert sorted(done) == ["a", "b"]
    ((piece, why),) = lost
    assert piece == "big"
    assert why.startswith("3 workers died of it (out of memory: ")
    assert fake.hired == 2 + on_ray.TRIES
    assert len(fake.killed) == fake.hired


def test_an_error_of_the_work_itself_ends_it():
    fake = FakeRay(a=[WorkError(DiffcernError("a is broken"))])
    with pytest.raises(DiffcernError, match=r"^a is broken$"):
        run(fake, ["a", "b"], lambda piece, result: None)


def test_what_is_in_work_at_ctrl_c_is_handed_back():
    fake, done = FakeRay(), []

    def finished(piece, result):
        done.append(piece)
        if len(done) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(fake, "abcdef", finished)
    assert done == ["a", "b", "c"]
    assert len(fake.killed) == 2


@pytest.fixture
def installed(monkeypatch):
    """A Ray without any cluster."""
    fake = FakeRay()
    fake.is_initialized, fake.ended = lambda: False, []
    fake.shutdown = lambda: fake.ended.append(True)
    monkeypatch.setattr(on_ray, "imported", lambda: fake)
    return fake


def test_no_cluster_runs_here(installed):
    def init(**given):
        raise ConnectionError("Could not find any running Ray instance")

    installed.init = init
    with pytest.raises(UsageError, match=r"no Ray cluster answers at 'auto': Could not find.*ray start"):
        OnRay("auto").map(lambda: None, [1], lambda piece, result: None)


def test_the_dashboard_s_address_is_said_and_the_cluster_ended(installed):
    installed.init = lambda **given: SimpleNamespace(dashboard_url="127.0.0.1:8265")
    installed.nodes = lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}]
    said = []
    with pytest.raises(UsageError, match="more than the cluster's machines have"):
        OnRay("local", 2, say=said.append).map(lambda: None, [1], lambda piece, result: None)
    assert said == ["Ray's dashboard: http://127.0.0.1:8265"]
    assert installed.ended == [True]


@pytest.mark.parametrize(
    ("how", "expected"),
    [({}, 2), ({"workers": 3}, 1), ({"ray": "local"}, 1), ({"ray": "local", "cpus_per_worker": 3}, 3)],
)
def test_what_is_done_here_has_the_threads_of_a_worker(models, how, expected):
    """What `align` learns is the same whoever made the images."""
    job = jobs.make(jobs.Classify, {"images": "photos", "prior": models["prior"], **how})
    torch.set_num_threads(2)
    with job.threads():
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 2
