"""Writes the tables of runs into the pages, from summaries that are kept in docs/data.

    python docs/tables.py                           # writes every table between its marks
    python docs/tables.py --check                   # fails where a page says something else
    python docs/tables.py --keep runs/NAME [...]    # keeps the summary of a run, NAME.json

A page marks a table by `<!-- table: NAME -->` and `<!-- end of table -->`; what stands between is written. Behind the
name `entries=a,b` and `shifts=c,d` choose rows and columns, and leave the notes below the table out. `differences=mean`
(or another shift) writes every metric's difference to source instead, with its interval. One number of the first metric
is marked by `<!-- value: NAME ENTRY SHIFT -->` before it and `<!-- -->` behind it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from diffcern.report.summary import MEAN, SOURCE
from diffcern.report.tables import markdown_table
from diffcern.report.wording import (
    amount,
    change,
    described,
    headline,
    label,
    main_metric,
    measured,
    names,
    other_metrics,
)

DOCS = Path(__file__).parent
DATA = DOCS / "data"
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("methods/*.md"))]
MARK = re.compile(
    r"(<!-- table: (\S+)((?: \w+=\S+)*) -->\n)((?:(?!<!-- table: ).)*?)(<!-- end of table -->)", re.DOTALL
)
VALUE = re.compile(r"(<!-- value: (\S+) (\S+) (\S+) -->)[^<]*(<!-- -->)")
DIGITS = 7  # that are kept of a number: tables show three, and a rounded interval's bound must not move


def keep(run: Path) -> Path:
    """The summary of a run folder, a line for each of its objects."""
    rows = [
        {key: rounded(value) for key, value in row.items()} for row in json.loads((run / "summary.json").read_text())
    ]
    if not all(row["complete"] for row in rows):
        raise SystemExit(f"{run} is incomplete: run its bench again, which goes on")
    DATA.mkdir(exist_ok=True)
    path = DATA / f"{run.name}.json"
    path.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")
    return path


def rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def table(name: str, chosen: str) -> str:
    """What stands between the marks of a table."""
    rows = json.loads((DATA / f"{name}.json").read_text())
    options = dict(option.split("=") for option in chosen.split())
    for option, key in (("entries", "entry"), ("shifts", "shift")):
        wanted = options.pop(option, "").split(",")
        if missing := {each for each in wanted if each} - {row[key] for row in rows}:
            raise SystemExit(f"{name} has no {key} {', '.join(sorted(missing))}")
        rows = [row for row in rows if wanted == [""] or row[key] in wanted]
    scope = options.pop("differences", None)
    if options:
        raise SystemExit(f"a table takes entries=, shifts= and differences=, not {', '.join(options)}")
    if scope and scope not in names(rows, "shift"):
        raise SystemExit(f"{name} has no shift {scope}")
    if scope:
        return differences(rows, scope)
    text = markdown_table(rows).rstrip("\n")
    return text.split("\n\n")[0] if chosen else text


def differences(rows: list[dict[str, Any]], scope: str) -> str:
    """What entries reach under a shift or in the mean, how far every metric is from source's, and what it costs."""
    first, others = main_metric(rows), other_metrics(rows)
    name = "mean over shifts" if scope == MEAN else scope
    header = [name, described(first), "to source", *(described(metric) for metric, _ in others), "evaluations"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for entry in names(rows, "entry"):
        row = headline(rows)[entry, scope]
        more = [(metric, found[entry, scope]) for metric, found in others]
        own = entry == SOURCE
        texts = [measured(r["value"], metric) if own else change(r, metric) for metric, r in more]
        reached = [measured(row["value"], first), "" if own else change(row, first)]
        lines.append([label(row), *reached, *texts, amount(row["nfe_forward"])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def value(name: str, entry: str, shift: str) -> str:
    rows = json.loads((DATA / f"{name}.json").read_text())
    if (row := headline(rows).get((entry, shift))) is None:
        raise SystemExit(f"{name} has no {entry} under {shift}")
    return measured(row["value"], main_metric(rows))


def written(text: str) -> str:
    """A page with its tables as they are in docs/data."""
    if not text.count("<!-- table: ") == text.count("<!-- end of table -->") == len(MARK.findall(text)):
        raise SystemExit("a table has one mark alone: all from one to the next would be taken for it")
    text = MARK.sub(lambda found: f"{found[1]}\n{table(found[2], found[3])}\n\n{found[5]}", text)
    return VALUE.sub(lambda found: f"{found[1]}{value(found[2], found[3], found[4])}{found[5]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keep", type=Path, nargs="+", default=[], metavar="RUN_DIR")
    options = parser.parse_args()
    for run in options.keep:
        print(keep(run))
    other = [page for page in PAGES if written(page.read_text()) != page.read_text()]
    for page in other:
        print(f"{page.relative_to(DOCS.parent)}: {'is not what docs/data says' if options.check else 'written'}")
        if not options.check:
            page.write_text(written(page.read_text()))
    sys.exit(bool(options.check and other))


if __name__ == "__main__":
    main()
