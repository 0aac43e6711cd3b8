"""Pieces of work done by a Ray cluster: this machine's cores, several GPUs, or many machines (extra `[ray]`).

    driver --- piece ---> worker (an actor, which loads the models once) --- result ---> driver, which alone writes

A worker that dies (killed, its node gone) or that runs out of memory is replaced, and another does its piece again; a
piece that `TRIES` workers died of is set aside with the reason, and the others go on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from diffcern.errors import DiffcernError, UsageError, first_line
from diffcern.run.executors import Finished, Lost, Make, Piece, Result

TRIES = 3  # workers that a piece may cost
STILLBORN = 10  # workers that die one after the other, and nothing done between: they cannot work there
PATIENCE = 30.0  # seconds, after which it is said what is waited for
CONNECT = 5.0  # seconds for an address to answer
SETTINGS = 4  # the kind of the frame that both sides of HTTP/2, which Ray speaks, begin with
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def unheard(text: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class OnRay:
    """address: "local" starts a cluster on this machine and ends it, "auto" joins the one that runs here, HOST:PORT
    another. workers: actors, None for as many as there is room for. cpus: of each, which are its threads; gpus: of
    each, parts of one allowed. say: hears where the dashboard is.

    `map` raises UsageError where Ray is not installed, for an address that does not answer, and where the cluster has
    no room for the workers.
    """

    address: str = "local"
    workers: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    say: Callable[[str], None] = unheard

    def map(
        self,
        make: Make[Piece, Result],
        pieces: Sequence[Piece],
        finished: Finished[Piece, Result],
        lost: Lost[Piece] | None = None,
    ) -> None:
        ray = imported()
        if not pieces:
            return
        with self._cluster(ray):
            count = min(self._room(ray), len(pieces))
            try:
                kind = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=0)(Worker)
                hire = partial(kind.remote, ray.put(make), threads_of(self.cpus), str(Path.cwd()))
            except ValueError as error:
                raise UsageError(f"--cpus-per-worker or --gpus-per-worker: {first_line(error)}") from error
            Pool(ray, hire, finished, lost, self.say, deque(enumerate(pieces))).run(count)

    @contextlib.contextmanager
    def _cluster(self, ray: Any) -> Iterator[None]:
        if ray.is_initialized():  # by whoever calls the library, and theirs to end
            yield
            return
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        how: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address == "local":
            how["num_cpus"] = os.cpu_count() or 1
        elif self.address != "auto":
            check_answers(self.address)
        try:
            context = ray.init(address=self.address, **how)
        except ray.exceptions.AuthenticationError as error:
            raise UsageError(
                f"the Ray cluster at {self.address!r} wants its token: put its ~/.ray/auth_token on this machine, and "
                "set RAY_AUTH_MODE=token"
            ) from error
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise UsageError(
                f"no Ray cluster answers at {self.address!r}: {first_line(error)}. Start one (`ray start "
                "--head`), or give local"
            ) from error
        if context.dashboard_url:
            self.say(f"Ray's dashboard: http://{context.dashboard_url}")
        try:
            yield
        finally:
            ray.shutdown()

    def _room(self, ray: Any) -> int:
        """How many workers there are to be. Raises UsageError where the cluster has not the room."""
        needs = {"CPU": self.cpus, "GPU": self.gpus}
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(min(int(has.get(kind, 0) / want) for kind, want in needs.items() if want) for has in machines)
        if room < (self.workers or 1):
            there = "; ".join(f"{has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs" for has in machines)
            raise UsageError(
                f"{self.workers or 1} workers of {self.cpus:g} CPUs and {self.gpus:g} GPUs each are more than the "
                f"cluster's machines have ({there}): lower --workers, --cpus-per-worker or --gpus-per-worker"
            )
        return self.workers or room


class Worker:
    """Loads what the work needs with its first piece, so that what loading raises is raised as it is."""

    def __init__(self, make: Make[Any, Any], threads: int, folder: str) -> None:
        with contextlib.suppress(OSError):  # of the command: paths are as they were typed there
            os.chdir(folder)
        self.make, self.threads = make, threads
        self.work: Callable[[Any], Any] | None = None

    def ready(self) -> None:
        """Answers once the worker has its place."""

    def do(self, piece: Any) -> Any:
        if self.work is None:
            self.work = self.make()
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(self.threads)
        return self.work(piece)


@dataclass
class Pool:
    """hire: another worker. waiting: pieces by their number. starting, busy: workers by what they are to answer."""

    ray: Any
    hire: Callable[[], Any]
    finished: Finished[Any, Any]
    lost: Lost[Any] | None
    say: Callable[[str], None]
    waiting: deque[tuple[int, Any]]
    starting: dict[Any, Any] = field(default_factory=dict)
    busy: dict[Any, tuple[Any, int, Any]] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    deaths: Counter[int] = field(default_factory=Counter)
    in_a_row: int = 0

    def run(self, count: int) -> None:
        for _ in range(count):
            self._start()
        try:
            while self.waiting or self.busy:
                answers, _ = self.ray.wait([*self.starting, *self.busy], num_returns=1, timeout=PATIENCE)
                if not (answers or self.busy):
                    self.say("waiting for the cluster to have room for a worker")
                for answer in answers:
                    self._take(answer)
        except BaseException:
            self._hand_back()
            raise
        finally:  # or they would hold their place until somebody collects them
            for worker in [*self.starting.values(), *self.idle, *(worker for worker, _, _ in self.busy.values())]:
                self.ray.kill(worker)

    def _start(self) -> None:
        worker = self.hire()
        self.starting[worker.ready.remote()] = worker

    def _give(self, worker: Any) -> None:
        """The next piece, where there is one."""
        if self.waiting:
            number, piece = self.waiting.popleft()
            self.busy[worker.do.remote(piece)] = worker, number, piece
        else:
            self.idle.append(worker)

    def _take(self, answer: Any) -> None:
        number, piece = -1, None
        if answer in self.starting:
            worker = self.starting.pop(answer)
        else:
            worker, number, piece = self.busy.pop(answer)
        try:
            result = self.ray.get(answer)
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if not out_of_memory(cause):
                raise cause from None
            self.ray.kill(worker)  # what it holds by now would be in the way of the next piece as well
            self._died(number, piece, f"out of memory: {first_line(cause)}")
        except self.ray.exceptions.RayError as error:  # it died, or its node did
            if "creation task" in str(error):
                last = str(error).strip().splitlines()[-1]
                raise DiffcernError(
                    f"a worker cannot start ({last}): every machine of the cluster needs the same Python and diffcern"
                ) from None
            self._died(number, piece, first_line(error))
        else:
            self._give(worker)
            if piece is not None:
                self.in_a_row = 0
                self.finished(piece, result)

    def _died(self, number: int, piece: Any, why: str) -> None:
        self.in_a_row += 1
        if self.in_a_row == STILLBORN:
            raise DiffcernError(
                f"{STILLBORN} workers died one after the other ({why}), perhaps for want of memory: what was finished "
                "is kept; run again with fewer workers"
            )
        if piece is not None:
            self.deaths[number] += 1
            if self.deaths[number] < TRIES:
                self.waiting.appendleft((number, piece))  # a bench's first piece must not come last
            elif self.lost is None:
                raise DiffcernError(f"{TRIES} workers died of the same piece of work, {piece}: {why}")
            else:
                self.lost(piece, f"{TRIES} workers died of it ({why})")
        if self.waiting and self.idle:
            self._give(self.idle.pop())
        self._start()

    def _hand_back(self) -> None:
        """Pieces in work are finished, and none of them is lost."""
        for answer, (_, _, piece) in self.busy.items():
            try:
                result = self.ray.get(answer)
            except Exception:  # it is another's that is raised
                continue
            self.finished(piece, result)


def threads_of(cpus: float) -> int:
    """Of a worker that has so many CPUs, or parts of one."""
    return max(1, int(cpus))


def out_of_memory(error: Exception) -> bool:
    """Python's own, or torch's of an accelerator."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def imported() -> Any:
    """The library. Raises UsageError where it is not installed."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UsageError("--ray needs Ray: pip install 'diffcern[ray]'") from error
    return ray


def check_answers(address: str) -> None:
    """Raises UsageError for an address that nobody answers at: Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        raise UsageError(f"--ray takes local, auto or HOST:PORT, not {address!r}")
    try:
        with socket.create_connection((host, int(port)), CONNECT) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":  # else it is not ours to begin
                connection.sendall(HELLO)
                answer = connection.recv(4, socket.MSG_WAITALL)
                if len(answer) < 4 or answer[3] != SETTINGS:
                    raise ConnectionError("something else listens there")
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"no Ray cluster answers at {address}: {error}. Start one (`ray start --head`), or give local"
        ) from error
