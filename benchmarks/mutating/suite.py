"""The tests that meet a mutant, in a process that has imported everything but diffcern already."""

from __future__ import annotations

import gc
import json
import math
import os
import pkgutil
import resource
import shutil
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import coverage
import pytest

from mutating.changes import ROOT, SOURCE, Mutant

PYTEST = ("-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=")
MOST = 20.0  # seconds of tests for one mutant
NO_TEST = "an error at import, a crash, or far too long"
MEMORY = 24 * 2**30  # bytes of address space, for what a mutant may want


class Suite:
    """The tests, which of them runs a line, and how long each takes: found once, and kept in the folder."""

    def __init__(self, folder: Path, modules: list[Path]) -> None:
        self.folder, self.modules = folder, modules
        self.root = folder / "root"  # a copy of the repository: what a mutant does to files, it does there
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(ROOT, self.root, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache"))
        self.source = self.root / SOURCE.relative_to(ROOT)
        self._warm()
        self.seconds: dict[str, float] = {}
        self.tests: dict[str, dict[str, list[str]]] = {}  # by module and line
        known = folder / "coverage.json"
        since = known.stat().st_mtime if known.is_file() else 0.0
        if since < max(path.stat().st_mtime for path in modules):  # whose lines have moved
            since = 0.0
            known.write_text(json.dumps({"seconds": {}, "tests": {}}))
        self._read(known)
        newer = [path for path in sorted((ROOT / "tests").rglob("*.py")) if path.stat().st_mtime > since]
        if newer:
            _child(lambda: self._measure(known, [str(path.relative_to(ROOT)) for path in newer]), 3600)
            self._read(known)

    def _read(self, known: Path) -> None:
        found = json.loads(known.read_text())
        self.seconds, self.tests = found["seconds"], found["tests"]

    def _warm(self) -> None:
        """Imports what the tests and the package import from others, and forgets all that is ours."""
        os.chdir(self.root)
        sys.path.insert(0, str(self.source))
        others = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(self.source), others])  # of processes that tests start
        with silent():
            pytest.main(["--collect-only", "-q", *PYTEST])
            for module in pkgutil.walk_packages([str(self.source / "diffcern")], "diffcern."):
                if not module.name.endswith("__main__"):
                    __import__(module.name)
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            if file.startswith((str(self.root), str(SOURCE))) and "site-packages" not in file and name != "__main__":
                del sys.modules[name]
        gc.collect()
        gc.freeze()  # what the children inherit is not looked through again, so that they collect what they leave

    def _measure(self, out: Path, files: list[str]) -> int:
        measured = coverage.Coverage(data_file=None, include=[str(self._copied(path)) for path in self.modules])
        seconds: dict[str, float] = defaultdict(float)

        class Watch:
            def pytest_runtest_logstart(self, nodeid: str) -> None:
                measured.switch_context(nodeid)

            def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
                seconds[report.nodeid] += math.inf if report.failed else report.duration

        measured.start()
        pytest.main(["-q", *PYTEST, f"--basetemp={self.folder / 'tmp'}", *files], plugins=[Watch()])
        measured.stop()
        data = measured.get_data()
        tests = {
            name: {line: [test for test in known if test.split("::")[0] not in files] for line, known in lines.items()}
            for name, lines in self.tests.items()
        }
        for file in data.measured_files():
            lines = tests.setdefault(Path(file).relative_to(self.source).as_posix(), {})
            for line, new in data.contexts_by_lineno(file).items():
                lines.setdefault(str(line), []).extend(test for test in new if test in seconds)
        out.write_text(json.dumps({"seconds": {**self.seconds, **seconds}, "tests": tests}))
        return 0

    def _copied(self, path: Path) -> Path:
        return self.source / path.relative_to(SOURCE)

    def of(self, mutant: Mutant) -> list[str]:
        """The tests that a mutant meets, in order."""
        lines = self.tests.get(mutant.path.relative_to(SOURCE).as_posix(), {})
        ran = [{test for line in place for test in lines.get(str(line), [])} for place in mutant.places]
        chosen = next(filter(None, ran), set())
        if not ran[0]:  # it runs at import: a test may look at what it made and run nothing of the module
            beside = (ROOT / "tests" / mutant.path.relative_to(SOURCE / "diffcern")).parent.relative_to(ROOT).as_posix()
            chosen |= {test for test in self.seconds if test.partition("::")[0].rpartition("/")[0] == beside}
        chosen = {test for test in chosen if self.seconds[test] < MOST}
        own = f"test_{mutant.path.stem}.py"
        ordered, spent = [], 0.0
        for test in sorted(chosen, key=lambda test: (own not in test or self.seconds[test] > 2, self.seconds[test])):
            spent += self.seconds[test]
            if spent > MOST:
                break
            ordered.append(test)
        return ordered

    def killer(self, mutant: Mutant) -> str:
        """The test that fails with the mutant, or `NO_TEST`; "" where all pass."""
        tests, place = self.of(mutant), self._copied(mutant.path)
        place.write_text(mutant.source)
        for cached in (place.parent / "__pycache__").glob(f"{place.stem}.*"):
            cached.unlink()
        try:
            failed = self.failing(tests, "-x") if tests else []
        finally:
            place.write_text(mutant.path.read_text())
        return failed[0] if failed else ""

    def failing(self, tests: list[str], *options: str) -> list[str]:
        """Those of the tests that fail in a process of their own; `NO_TEST` where the process ends otherwise."""
        log = self.folder / "failed.txt"

        class Watch:
            def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
                if report.failed:
                    log.write_text(f"{log.read_text()}{report.nodeid}\n")

        def meet() -> int:
            sys.dont_write_bytecode = True
            base = f"--basetemp={self.folder / 'tmp'}"
            return int(pytest.main(["-q", *PYTEST, base, *options, *tests], plugins=[Watch()]))

        log.write_text("")
        code = _child(meet, 30 + 5 * sum(self.seconds[test] for test in tests))
        return (log.read_text().splitlines() or [NO_TEST]) if code else []


@contextmanager
def silent() -> Iterator[None]:
    kept, nothing = (os.dup(1), os.dup(2)), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        yield
    finally:
        for to, own in enumerate(kept, start=1):
            os.dup2(own, to)
            os.close(own)
        os.close(nothing)


def _child(work: Callable[[], int], most: float) -> int:
    """What the work returns in a process of its own, in silence; 1 where it ends otherwise, or takes longer."""
    if not (pid := os.fork()):
        code = 1
        try:
            os.setsid()
            sys.modules["__main__"] = ModuleType("__main__")  # else processes that tests spawn begin with this script
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            with silent():
                code = work()
        finally:
            os._exit(code)
    end = time.monotonic() + most
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 1
