"""What became of one damaged input: right, clear, raw, hang or wrong.

right   it was read, and the answer is the one of the undamaged input, or what the input now says
clear   an error of ours, which says what to do
raw     any other error
hang    more than `LIMIT` seconds
wrong   another answer without an error, or an error where nothing was damaged
"""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from diffcern.errors import DiffcernError

OUTCOMES = ("right", "clear", "raw", "hang", "wrong")
LIMIT = 10.0  # seconds for one input


@dataclass(frozen=True)
class Case:
    """what: describes the damage. run: reads the input; True where the answer is right. whole: nothing was damaged."""

    what: str
    run: Callable[[], bool]
    whole: bool = False


class Kind(Protocol):
    """Makes inputs of one kind; whatever they need is made once, in `folder`."""

    def __init__(self, folder: Path) -> None: ...
    def case(self, rng: Random) -> Case: ...


@dataclass(frozen=True)
class Outcome:
    name: str
    what: str
    error: str = ""


class Hang(BaseException):
    """Not an Exception, lest a reader that catches everything turns it into an error of ours."""


def judge(case: Case) -> Outcome:
    """Runs a case, for no longer than `LIMIT` seconds where Python can be interrupted."""

    def alarm(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    started = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            right = case.run()
        outcome = Outcome("right" if right else "wrong", case.what)
    except Hang:
        outcome = Outcome("hang", case.what)
    except DiffcernError as error:
        said = str(error)
        name = "wrong" if case.whole else "clear" if len(said) > 10 else "raw"
        outcome = Outcome(name, case.what, f"{type(error).__name__}: {said}")
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # also panics of libraries in Rust, and SystemExit
        outcome = Outcome("raw", case.what, f"{type(error).__name__}: {error}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if time.perf_counter() - started > LIMIT:
        return Outcome("hang", case.what, outcome.error)
    return outcome
