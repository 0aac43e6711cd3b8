"""What of a run is there, in words: how far it got, and which images it had to skip."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten

from diffcern.report.summary import CLEAN, MEAN, SOURCE, main_rows
from diffcern.report.wording import Row, count, headline

NAMED = 3  # of a longer list
REASON = 60  # characters of one


def progress(summary: Sequence[Row]) -> str:
    """How many cells are there, and how to get the others; empty where all of them are."""
    cells = [row for row in main_rows(summary) if row["severity"] is not None]
    done = sum(row["complete"] for row in cells)
    if done == len(cells):
        return ""
    return f"incomplete: {done:,} of {count(len(cells), 'cell')}; run the same command again to finish"


def shortfalls(summary: Sequence[Row]) -> list[str]:
    """Where entries lack answers; those that lack the same are named together."""
    short = [key for key, row in headline(summary).items() if key[1] != MEAN and not row["complete"]]
    together: dict[tuple[str, ...], list[str]] = {}
    for entry in dict.fromkeys(entry for entry, _ in short):
        together.setdefault(tuple(shift for other, shift in short if other == entry), []).append(entry)
    return [
        f"{listed(entries)} {'is' if len(entries) == 1 else 'are'} incomplete on {listed(shifts)}: means are over "
        f"what is there, differences over the images shared with {SOURCE}."
        for shifts, entries in together.items()
    ]


def skips(summary: Sequence[Row]) -> list[str]:
    """Which images were skipped and why, and how many that leaves where."""
    lost: dict[tuple[str, int], dict[str, str]] = {}
    for row in summary:
        if row["severity"] is not None:
            lost.setdefault((row["shift"], row["severity"]), {}).update(row["skipped"])
    reasons = {id: reason for skipped in lost.values() for id, reason in skipped.items()}
    if not reasons:
        return []
    named = [f"{id} ({shorten(reason, REASON, placeholder=' …')})" for id, reason in sorted(reasons.items())]
    notes = [f"{count(len(reasons), 'image')} skipped: {listed(named)}."]
    left: dict[int, list[str]] = {}
    for (shift, severity), skipped in lost.items():
        several = sum(other == shift for other, _ in lost) > 1
        left.setdefault(summary[0]["planned"] - len(skipped), []).append(f"{shift} {severity}" if several else shift)
    where = [f"{n:,} on {listed(shifts) if len(left) > 1 else 'every shift'}" for n, shifts in left.items()]
    notes.append(f"Images that are left: {'; '.join(where)}.")
    clean = lost.pop((CLEAN, 0), None)
    if clean is not None and any(skipped.keys() != clean.keys() for skipped in lost.values()):
        notes.append("The mean over shifts covers other images than clean.")
    return notes


def listed(items: Sequence[str]) -> str:
    """`a, b and c`, a long list abridged to `a, b, c and 5 more`."""
    shown = [*items[:NAMED], *([f"{len(items) - NAMED} more"] if len(items) > NAMED else [])]
    return " and ".join(part for part in (", ".join(shown[:-1]), shown[-1]) if part)
