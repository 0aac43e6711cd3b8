"""Options of methods, names of methods, and command lines: used as given with finite answers, or refused."""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from pathlib import Path
from random import Random
from typing import Any

import torch

import diffcern
from diffcern.cli import main
from diffcern.errors import DiffcernError, UsageError
from diffcern.methods import METHODS, checked_options
from diffcern.methods.options import options_of

from . import tiny
from .damage import ODD
from .outcomes import Case
from .specifications import same

CHEAP: dict[str, dict[str, Any]] = {  # so that one step takes milliseconds
    "memo": {"views": 2},
    "eata": {"source_images": "embedded:digits/train", "fisher_count": 2},
    "cotta": {"views": 2},
    "ttt-mae": {"steps": 1, "masks": 2},
    "diffusion-tta": {"steps": 1, "draws": 2},
    "diffusion-classifier": {"draws": 2, "start": 2},
    "diffpure": {"start": 3, "steps": 2},
    "dda": {"start": 3, "steps": 2},
    "gda": {"start": 3, "steps": 2, "views": 2},
    "dusa": {"top_k": 2, "random_k": 1},
}
WORDS = (
    "",
    "x",
    "adam",
    "sgd",
    "uniform",
    "fixed-bank",
    "eps",
    "x0",
    "all",
    "norm",
    "sum",
    "none",
    "ddim",
    "../x",
    "\0",
)
COUNTS = ("steps", "views", "top_k", "random_k", "start", "factor", "rows", "draws", "masks")
RATES = ("learning_rate", "eta", "mse", "weight", "scale", "temperature", "source_count")
GOOD: dict[str, list[Any]] = {  # among them values that contradict each other
    **{option: [1, 2, 3] for option in COUNTS},
    **{option: [0.0, 0.01, 1, 2] for option in RATES},
    **{option: [0.0, 0.5, 0.9, 1, None] for option in ("momentum", "skip", "familiar", "timestep", "gate")},
    **{option: [True, False] for option in ("resample", "adapt_prior", "batch_statistics")},
    "strategy": ["uniform", "stratified", "antithetic", "van-der-corput", "even", "fixed-bank"],
    "weighting": ["eps", "x0", "v", "flow", "min-snr", "exp-7t"],
    "norm": ["l1", "l2"],
    "span": [[0.0, 1.0], [0.1, 0.1], (0.5, 0.9), [0.9, 0.1]],
    "optimizer": ["adam", "adamw", "sgd"],
    "parameters": ["all", "norm", "last"],
    "solver": ["ddpm", "ddim", "dpm-solver++", "unipc", "one-shot", "euler"],
    "form": ["through", "estimate", "replace"],
    "ensemble": ["none", "sum", "entropy", "confidence"],
    "keep": [[1], [2, 1], []],
    "samples": [[2], [1, 2], []],
}
NAMES = (
    ":",
    "",
    "x",
    "math:pi",
    "math:",
    ":x",
    "tent ",
    "TENT",
    "os:getcwd",
    "builtins:int",
    "..:x",
    "a.b:c",
    "\0",
    "é:é",
)
FLAGS = (
    *("--max-side", "--seed", "--dtype", "--device", "--batch-size", "--labels", "--class-map", "--prompt", "--set"),
    *("--preset", "--prior", "--predictor", "--out", "--method", "--shard", "--workers", "--x"),
)
NUMBERS = (0, 1, 2, 3, 0.0, 0.1, 1.0, 2.5, 1e-300, 1e30, -1, -0.1)


class Options:
    """Methods over tiny models and two images; a fifth of them from the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = {"prior": tiny.prior(folder / "prior"), "predictor": tiny.predictor(folder / "predictor")}
        self.paths |= {"mae": tiny.mae(folder / "mae"), "images": tiny.pictures(folder / "images")}
        self.prior = diffcern.load_prior(str(self.paths["prior"]))
        self.predictors = {name: diffcern.load_predictor(str(self.paths[name])) for name in ("predictor", "mae")}
        self.images = tiny.images()

    def case(self, rng: Random) -> Case:
        if rng.random() < 0.2:
            line = self._line(rng)
            return Case(shlex.join(line), lambda: self._command(line))
        if rng.random() < 0.1:
            name = rng.choice(NAMES)
            return Case(f"method {name!r}", lambda: self._answers(name, {}))
        name = rng.choice(list(METHODS))
        known = list(options_of(METHODS[name]).model_fields)
        options = dict(CHEAP.get(name, {}))
        if rng.random() < 0.05 and not name.startswith(("sda", "tpt", "foa")):  # which need more than is here
            return Case(f"{name}, whole", lambda: self._answers(name, options), whole=True)
        for _ in range(rng.randint(1, 3)):
            option = rng.choice([*known, "x", "", "a.b"])
            options[option] = self._value(option, rng)
        return Case(f"{name} {options!r}", lambda: self._answers(name, options))

    def _value(self, option: str, rng: Random) -> Any:
        if option in GOOD and rng.random() < 0.7:
            return rng.choice(GOOD[option])
        value = rng.choice([rng.choice(ODD), rng.choice(WORDS), rng.choice(NUMBERS), [rng.choice(NUMBERS)] * 2])
        # a billion steps are what they are called: work without end, and no mistake that could be told
        large = isinstance(value, int | float) and value > 1e6 and option in ("steps", "masks", "views", "draws")
        return 10**15 if large and option != "steps" else 2 if large else value

    def _answers(self, name: str, options: dict[str, Any]) -> bool:
        model = self.predictors["mae" if name == "ttt-mae" else "predictor"]
        adapting = diffcern.adapt(model, self.prior, name, preset="paper", **options)
        output = adapting(self.images)
        chances = output.softmax(1)  # a class that is left out is at minus infinity
        finite = bool(torch.isfinite(chances).all()) and output.shape == (2, len(tiny.NAMES))
        checked = checked_options(name, options)
        return finite and all(same(value, checked[option]) for option, value in options.items())

    def _line(self, rng: Random) -> list[str]:
        """A command that is right, with some things changed."""
        folder = self.folder
        commands = {
            "classify": [
                "classify",
                str(self.paths["images"]),
                "--prior",
                str(self.paths["prior"]),
                "--set",
                "draws=1",
            ],
            "adapt": [
                *(
                    "adapt",
                    str(self.paths["images"]),
                    "--predictor",
                    str(self.paths["predictor"]),
                    "--method",
                    "source",
                ),
                *("--out", str(folder / "out.csv"), "--overwrite"),
            ],
            "purify": [
                *(
                    "purify",
                    str(self.paths["images"]),
                    "--prior",
                    str(self.paths["prior"]),
                    "--out",
                    str(folder / "pure"),
                ),
                *("--start", "3", "--steps", "1"),
            ],
            "report": ["report", str(folder)],
            "list": ["list", "methods"],
            "bench": ["bench", "nothing.toml", "--out", str(folder / "run")],
        }
        line = commands[rng.choice(list(commands))]
        for _ in range(rng.randint(1, 2)):
            odd = str(rng.choice([rng.choice(ODD), rng.choice(WORDS), rng.choice(NUMBERS)])).replace("\0", "?")
            flag = rng.choice(FLAGS)
            way = rng.random()
            if way < 0.5:
                line = [*line, flag, odd]
            elif way < 0.8 and len(line) > 1:
                place = rng.randrange(1, len(line))
                line = [*line[:place], odd, *line[place + 1 :]]
            else:
                line = [*line, flag, f"{rng.choice(['draws', 'temperature', 'x', ''])}={odd}"]
        return line

    def _command(self, line: list[str]) -> bool:
        """Whether it ends well: with 0, or with 1 or 2 and an error that is said. DiffcernError in the latter case."""
        before, said = sys.argv, io.StringIO()
        sys.argv = ["diffcern", *line]
        code: object = 0
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
                main()
        except SystemExit as error:
            code = error.code or 0
        finally:
            sys.argv = before
        if code == 0:
            return True
        words = " ".join(said.getvalue().split())
        if code not in (1, 2) or "Traceback" in words or len(words) < 20:
            return False
        raise (UsageError if code == 2 else DiffcernError)(words)
