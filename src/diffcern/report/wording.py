"""Numbers into words: how percentages, differences and intervals are written, and the sentence that judges a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffcern.report.summary import CLEAN, MEAN, SOURCE

Row = Mapping[str, Any]
DAGGER = "†"
WORSE, SAME, BETTER = "worse", "same", "better"


def headline(summary: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """The object to print for each (entry, shift): the mean over severities where a shift has several."""
    # The severity-null objects follow the cells they average, so the last one wins.
    return {(row["entry"], row["shift"]): row for row in summary}


def names(summary: Sequence[Row], field: str) -> list[str]:
    """The distinct values of a field, in order."""
    return list(dict.fromkeys(row[field] for row in summary))


def shift_names(summary: Sequence[Row]) -> list[str]:
    """The shifts, without clean and the mean, in the order any entry has them."""
    return [name for name in names(summary, "shift") if name not in (CLEAN, MEAN)]


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def points(value: float | None) -> str:
    """A difference in percentage points, with its sign (a true minus); zero, rounded, carries none."""
    if value is None:
        return "–"
    text = f"{100 * value:+.1f}".replace("-", "\u2212")
    return text if text[1:] != "0.0" else "0.0"


def interval(low: float, high: float, signed: bool = True) -> str:
    """`[low, high]` in percentage points."""
    if not signed:
        return f"[{percent(low)}, {percent(high)}]"
    return "[" + ", ".join(points(v).removeprefix("+") for v in (low, high)) + "]"


def difference(row: Row) -> str:
    """`+18.3 [15.1, 21.4]`."""
    return f"{points(row['difference_to_source'])} {interval(row['difference_low'], row['difference_high'])}"


def standing(row: Row) -> str:
    """Whether an object is significantly better or worse than source: its interval excludes zero."""
    low, high = row["difference_low"], row["difference_high"]
    if low is None:
        return SAME
    return BETTER if low > 0 else WORSE if high < 0 else SAME


def amount(value: float | None) -> str:
    """Three significant digits, for seconds, evaluations and memory."""
    if value is None:
        return "–"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else "<0.001"


def label(row: Row) -> str:
    """An entry's name, with a dagger where it needs a batch."""
    return row["entry"] + (DAGGER if row["needs_batch"] else "")


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def best_entry(summary: Sequence[Row]) -> str | None:
    """The adapting entry with the highest mean (clean accuracy where nothing is shifted)."""
    table = headline(summary)
    scope = MEAN if any(row["shift"] == MEAN for row in summary) else CLEAN
    rows = [r for (entry, shift), r in table.items() if shift == scope and entry != SOURCE and "value" in r]
    return max(rows, key=lambda row: row["value"])["entry"] if rows else None


def verdict(summary: Sequence[Row]) -> str:
    """One sentence on the best entry, which says so when it does not beat source."""
    table, best, shifts = headline(summary), best_entry(summary), shift_names(summary)
    if not any("value" in row for row in summary):
        return "No targets are known, so nothing is said about accuracy; answers and their cost are below."
    scope, where = (MEAN, f"over {count(len(shifts), 'shift')}") if shifts else (CLEAN, "on clean images")
    if best is None:
        row = table.get((SOURCE, scope)) or table[(SOURCE, CLEAN)]
        return f"{SOURCE}: {percent(row['value'])} % {where}; there is no other entry to compare it with."
    row = table[best, scope]
    text = f"{label(row)}: {percent(row['value'])} % {where}"
    if row["difference_low"] is None:
        return f"{text}; there is no entry named {SOURCE} to compare it with."
    text += (
        f", {points(row['difference_to_source'])} points "
        + {
            BETTER: f"over {SOURCE}",
            SAME: f"from {SOURCE}, which is no significant difference",
            WORSE: f"against {SOURCE}, which is significantly better",
        }[standing(row)]
    )
    text += f" {interval(row['difference_low'], row['difference_high'])}"
    clean = table.get((best, CLEAN))
    if scope == CLEAN or clean is None or clean["difference_low"] is None:
        return text + "."
    word = {BETTER: "improved", SAME: "unchanged", WORSE: "harmed"}[standing(clean)]
    return f"{text}; clean {word} ({difference(clean)})."


def findings(summary: Sequence[Row]) -> list[str]:
    """What a reader should not miss beside the verdict: where an entry loses, what it needs, what is missing."""
    table, shifts, found = headline(summary), shift_names(summary), []
    best = best_entry(summary)
    for entry in names(summary, "entry"):
        rows = [table[entry, s] for s in (CLEAN, *shifts) if (entry, s) in table]
        if worse := [row for row in rows if standing(row) == WORSE]:
            where = ", ".join(f"{row['shift']} {points(row['difference_to_source'])}" for row in worse)
            found.append(f"{label(worse[0])} is significantly worse than {SOURCE} on {where}.")
        if entry == best and rows and rows[0]["needs_batch"]:
            found.append(f"{label(rows[0])} needs a batch: it cannot answer for one image alone.")
        if missing := [
            s for (e, s), row in table.items() if e == entry and not row["complete"] and s != MEAN
        ]:
            found.append(
                f"{entry} has not answered the same images as the other entries on {', '.join(missing)}: its means are "
                "over what is there, its differences over the images it shares with source."
            )
        elif not table.get((entry, MEAN), {"complete": True})["complete"]:
            found.append(f"{entry} has no answers on some shifts: its mean is over the others.")
    return found
