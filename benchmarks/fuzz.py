"""Damaged and hostile input: does diffcern answer rightly, or say clearly what is wrong?

    python benchmarks/fuzz.py                                  10,000 inputs; exit code 1 on any raw, hang or wrong
    python benchmarks/fuzz.py --kind models --only 123         one of them again, with its error

Inputs are a function of the seed, the kind and their number. They go through what a user calls: load_prior,
load_predictor, load_dataset, load_pairs, read_spec, Journal, report, bench and the command line; the models are tiny.
See `fuzzing/outcomes.py` for what is right, clear, raw, a hang and wrong.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from random import Random

import diffusers.utils.logging
import huggingface_hub.constants
import torch
import transformers.utils.logging
from fuzzing.images import Images
from fuzzing.journals import Journals
from fuzzing.models import ModelFolders
from fuzzing.options import Options
from fuzzing.outcomes import OUTCOMES, Kind, Outcome, judge
from fuzzing.runs import RunFolders
from fuzzing.specifications import Specifications
from fuzzing.tables import Tables
from rich.console import Console
from rich.table import Table
from rich.text import Text

KINDS: dict[str, type[Kind]] = {
    "images": Images,
    "specifications": Specifications,
    "options": Options,
    "models": ModelFolders,
    "runs": RunFolders,
    "journals": Journals,
    "tables": Tables,
}
SHARES = {"images": 30, "specifications": 15, "options": 13, "models": 15, "runs": 7, "journals": 10, "tables": 10}
BAD = ("raw", "hang", "wrong")


def fuzz(kind: str, numbers: range, seed: int, folder: Path) -> list[Outcome]:
    """The outcome of each of these inputs of a kind. Whatever an input names is inside the folder."""
    maker = KINDS[kind](folder)
    with silent(), chdir(folder):
        return [judge(maker.case(Random(f"{seed} {kind} {number}"))) for number in numbers]


@contextmanager
def silent() -> Iterator[None]:
    """What libraries in C and Rust write to stderr of damaged files is not shown."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--only", type=int, help="the number of one input")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    console, found, whole = Console(highlight=False), {}, sum(SHARES[kind] for kind in options.kind)
    for kind in options.kind:
        count = -(-options.count * SHARES[kind] // whole)
        numbers = range(count) if options.only is None else range(options.only, options.only + 1)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found[kind] = fuzz(kind, numbers, options.seed, Path(folder))
        for number, outcome in zip(numbers, found[kind], strict=True):
            if outcome.name in BAD or options.only is not None:
                console.print(Text(f"{kind} {number}: {outcome.name}: {outcome.what}: {outcome.error[:600]}"))
        console.print(f"{kind}: {count} in {time.perf_counter() - started:.0f} s", style="dim")
    console.print(table(found))
    console.print(f"seed {options.seed}, Python {platform.python_version()}, torch {torch.__version__}", style="dim")
    sys.exit(any(outcome.name in BAD for outcomes in found.values() for outcome in outcomes))


def quiet() -> None:
    """Names that are made up are not looked up, and what the libraries say of damaged files is not shown."""
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    for name in ("transformers", "diffusers", "huggingface_hub", "PIL", "accelerate"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for module in (diffusers.utils.logging, transformers.utils.logging):
        module.set_verbosity(logging.CRITICAL)
        module.disable_progress_bar()


def table(found: dict[str, list[Outcome]]) -> Table:
    made = Table("kind", "inputs", *OUTCOMES, box=None)
    total: Counter[str] = Counter()
    for kind, outcomes in found.items():
        counts = Counter(outcome.name for outcome in outcomes)
        total += counts
        made.add_row(kind, f"{len(outcomes):,}", *(f"{counts[name]:,}" for name in OUTCOMES))
    made.add_row("all", f"{total.total():,}", *(f"{total[name]:,}" for name in OUTCOMES))
    return made


if __name__ == "__main__":
    main()
