"""Mutants: would a test notice if the core said something else?

    pip install mutmut==3.8.1 coverage
    python benchmarks/mutation.py --work FOLDER                  300 mutants; a score for each module
    python benchmarks/mutation.py --work FOLDER --seed 1 --list  others, and those that no test noticed
    python benchmarks/mutation.py --work FOLDER --modules draws methods/dusa --count 1000       all of two modules

The changes are mutmut's (of operators, comparisons, constants, arguments, assignments, names) and ours: a statement
left out, a return of None, min for max. mutmut itself passes over decorated functions, and starts a process that
imports torch for each run; here one process imports everything once, and its children import diffcern anew, from a
copy of the repository that holds the mutant.

The suite runs once under coverage, and what has changed of it again: a mutant meets the tests that run its statement
(for what runs at import its function's, or its module's, and those of its folder), the module's own and the quickest
first, twenty seconds of them at most. What takes far longer than without it counts as killed. Mutants that are
alive and known to change nothing (`mutating/equivalent.py`) are left out of the score. With 95 % Wilson intervals.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from random import Random

from mutating.changes import SOURCE, Finder, Mutant
from mutating.equivalent import reason
from mutating.suite import NO_TEST, Suite
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffcern.report.summary import wilson

PACKAGE = SOURCE / "diffcern"
RUN = ("units", "order", "protocols", "batch", "journal", "store", "spec", "executors", "bench", "evaluate")
CORE = [
    *(PACKAGE / f"{name}.py" for name in ("likelihood", "draws", "sampling", "purifier", "weightings", "rng")),
    *sorted((PACKAGE / "methods").glob("*.py")),
    *(PACKAGE / "run" / f"{name}.py" for name in RUN),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for the copy and what coverage found")
    parser.add_argument("--count", type=int, default=300, help="mutants in all, shared out by how many a module has")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", nargs="+", metavar="NAME", help="as in the table, such as methods/dusa")
    parser.add_argument("--list", action="store_true", help="print those that are alive")
    parser.add_argument("--again", action="store_true", help="take it that what was killed before still is")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    suite, log = Suite(options.work.resolve(), CORE), options.work / "verdicts.json"
    before: dict[str, str] = json.loads(log.read_text()) if options.again and log.is_file() else {}
    console, verdicts = Console(highlight=False), dict(before)
    finders = {name_of(path): Finder(path) for path in CORE if not options.modules or name_of(path) in options.modules}
    total = sum(len(finder.found) for finder in finders.values())
    found: dict[str, list[Mutant]] = {}
    for name, finder in finders.items():
        count, there = max(5, round(options.count * len(finder.found) / total)), len(finder.found)
        chosen = Random(f"{options.seed} {name}").sample(range(there), min(count, there))
        found[name] = [finder.mutant(number) for number in chosen]
        for mutant in found[name]:
            verdicts[mutant.key] = before.get(mutant.key) or suite.killer(mutant)
            if options.list and not verdicts[mutant.key]:
                why = reason(mutant, name)
                note = f"  (equivalent: {why})" if why else ""
                console.print(Text(f"{mutant.place}: {mutant.before} -> {mutant.after}{note}"), soft_wrap=True)
        log.write_text(json.dumps(verdicts, indent=1))
    killers = {verdicts[mutant.key] for mutants in found.values() for mutant in mutants} - {"", NO_TEST}
    for test in suite.failing(sorted(killers)):
        console.print(f"[red]{test} fails without any mutant too: what it killed does not count[/]", soft_wrap=True)
        verdicts = {key: "" if killer == test else killer for key, killer in verdicts.items()}
    console.print(table(found, verdicts, {name: len(finder.found) for name, finder in finders.items()}))


def table(found: Mapping[str, list[Mutant]], verdicts: Mapping[str, str], there: Mapping[str, int]) -> Table:
    made = Table("module", "mutants", "tried", "equivalent", "killed", "alive", "score, %", box=None)
    every = []
    for name, mutants in found.items():
        killed = [bool(verdicts[m.key]) for m in mutants if verdicts[m.key] or not reason(m, name)]
        made.add_row(name, f"{there[name]}", f"{len(mutants)}", f"{len(mutants) - len(killed)}", *cells(killed))
        every += killed
    tried = sum(map(len, found.values()))
    made.add_row("all", f"{sum(there.values())}", f"{tried}", f"{tried - len(every)}", *cells(every))
    return made


def cells(killed: list[bool]) -> list[str]:
    """How many are killed and alive, and the score; equivalent ones are left out."""
    hits = sum(killed)
    low, high = (100 * bound for bound in (wilson(hits, len(killed)) if killed else (0.0, 1.0)))
    return [f"{hits}", f"{len(killed) - hits}", f"{100 * hits / max(1, len(killed)):.0f} [{low:.0f}, {high:.0f}]"]


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


if __name__ == "__main__":
    main()
