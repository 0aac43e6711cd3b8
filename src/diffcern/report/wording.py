"""Numbers into words: how values and intervals are written, and the sentence that judges a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffcern.kinds import CLASSIFICATION, KINDS
from diffcern.metrics import Metric
from diffcern.report.summary import CLEAN, MEAN, SOURCE, main_rows

Row = Mapping[str, Any]
DAGGER = "†"
PARTIAL = "‡"
WORSE, SAME, BETTER = "worse", "same", "better"
NARROW = 0.02  # a change whose whole interval is within two points is called none

CAVEATS = {  # of shifts that are not quite the published ones
    "frost": "frost is drawn, milder than the published photographs of ice: severity 5 is about their 1 to 2.",
}


def caveats(summary: Sequence[Row]) -> list[str]:
    """What to know of the shifts in a table before it is compared with a published one."""
    there = {row["shift"] for row in summary}
    return [text for shift, text in CAVEATS.items() if shift in there]


def headline(summary: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """The object to print for each (entry, shift): the mean over severities where a shift has several."""
    # The severity-null objects follow the cells they average, so the last one wins.
    return {(row["entry"], row["shift"]): row for row in main_rows(summary)}


def main_metric(summary: Sequence[Row]) -> Metric:
    """What the tables and plots show; accuracy where nothing could be measured."""
    known = {row.get("metric") for row in summary}
    return next((k.metrics[0] for k in KINDS.values() if k.metrics[0].name in known), CLASSIFICATION.metrics[0])


def other_metrics(summary: Sequence[Row]) -> list[tuple[Metric, dict[tuple[str, str], Row]]]:
    """The task's other metrics, each with what `headline` is of the first."""
    found = []
    for metric in next(k.metrics for k in KINDS.values() if main_metric(summary) in k.metrics)[1:]:
        rows = {(row["entry"], row["shift"]): row for row in summary if row.get("metric") == metric.name}
        found += [(metric, rows)] if rows else []
    return found


def described(metric: Metric) -> str:
    """`RMSE, m ↓`: what it is, in which unit, and which way is better."""
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.title}{unit} {'↑' if metric.better == 'higher' else '↓'}"


def opening(title: str) -> str:
    """A metric's title at the beginning of a sentence; a symbol stays as it is."""
    return title[:1].upper() + title[1:] if title.isascii() else title


def mean_of(metric: Metric) -> str:
    """What the mean of a metric over shifts is called."""
    return metric.title if metric.title.startswith("mean ") else f"mean {metric.title}"


def names(summary: Sequence[Row], field: str) -> list[str]:
    """The distinct values of a field, in order."""
    return list(dict.fromkeys(row[field] for row in summary))


def shift_names(summary: Sequence[Row]) -> list[str]:
    """The shifts, without clean and the mean, in the order any entry has them."""
    return [name for name in names(summary, "shift") if name not in (CLEAN, MEAN)]


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def accuracy(row: Row) -> str:
    """An accuracy (or another fraction) in percent, with a double dagger where images are missing."""
    return percent(row["value"]) + ("" if row["complete"] else PARTIAL)


def measured(value: float | None, metric: Metric, signed: bool = False) -> str:
    """A value of a metric, or a difference with its sign: percent, else three digits; without the unit."""
    if value is None or metric.unit == "%":
        return points(value) if signed else percent(value)
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "\u2212")


def change(row: Row, metric: Metric) -> str:
    """As `difference`, of any metric."""
    value, *ends = (measured(row[f"difference_{part}"], metric, signed=True) for part in ("to_source", "low", "high"))
    return f"{value} [{', '.join(end.removeprefix('+') for end in ends)}]"


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


def standing(row: Row, better: str = "higher") -> str:
    """Whether an object is significantly better or worse than source: its interval excludes zero.

    better: "higher" or "lower", as in `Metric`.
    """
    low, high = row["difference_low"], row["difference_high"]
    if low is None or low <= 0 <= high:
        return SAME
    return BETTER if (low > 0) == (better == "higher") else WORSE


def amount(value: float | None) -> str:
    """Two or three significant digits, for seconds, evaluations and memory."""
    if value is None:
        return "–"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 1 else f"{value:.2g}" if value >= 0.01 else "<0.01"


def label(row: Row) -> str:
    """An entry's name, with a dagger where it needs a batch."""
    return row["entry"] + (DAGGER if row["needs_batch"] else "")


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def best_entry(summary: Sequence[Row], single: bool = False) -> str | None:
    """The adapting entry that gains most on the shifts (on clean images where no shift has targets).

    single: only among those that answer for one image alone.
    """
    table, scope = headline(summary), _scope(summary)
    rows = [r for (entry, shift), r in table.items() if shift == scope and entry != SOURCE and "value" in r]
    rows = [row for row in rows if not (single and row["needs_batch"])]

    def gain(row: Row) -> tuple[bool, float]:
        # Where an entry is incomplete its mean is over other images than source's; the difference is not.
        change = row["difference_to_source"]
        return standing(row) == BETTER, row["value"] if change is None else change

    return max(rows, key=gain)["entry"] if rows else None


def _scope(summary: Sequence[Row]) -> str:
    return MEAN if any(row["shift"] == MEAN and "value" in row for row in summary) else CLEAN


def verdict(summary: Sequence[Row]) -> str:
    """One sentence on the best entry, which says so when it does not beat source."""
    table, best, scope = headline(summary), best_entry(summary), _scope(summary)
    if not any("value" in row for row in summary):
        return "No targets are known, so nothing is said about accuracy; answers and their cost are below."
    if best is None:
        return f"{_result(table[SOURCE, scope], summary)}; there is no other entry to compare it with."
    row = table[best, scope]
    text = _result(row, summary)
    if row["difference_low"] is None:
        return f"{text}; there is no entry named {SOURCE} to compare it with."
    prefix, preposition = {
        BETTER: ("", "over"),
        SAME: (f"No entry is significantly better than {SOURCE}. ", "to"),
        WORSE: (f"No entry beats {SOURCE}. ", "to"),
    }[standing(row)]
    change = interval(row["difference_low"], row["difference_high"])
    text = f"{prefix}{text}, {points(row['difference_to_source'])} points {preposition} {SOURCE} {change}"
    clean = table.get((best, CLEAN))
    if scope == CLEAN or clean is None or clean["difference_low"] is None:
        return text + "."
    return f"{text}; clean {_clean_change(clean)} ({difference(clean)})."


def _result(row: Row, summary: Sequence[Row]) -> str:
    """`tent†: 61.2 % over 8 shifts`; of anything but an accuracy it says what it is."""
    metric = main_metric(summary)
    what = "" if metric.name == "accuracy" else f"{metric.title} "
    partly = "" if row["complete"] else "what is there of "
    shifts = f"over {partly}{count(len(shift_names(summary)), 'shift')}"
    return f"{label(row)}: {what}{accuracy(row)} % {shifts if row['shift'] == MEAN else 'on clean images'}"


def _clean_change(row: Row) -> str:
    """In one word where the interval allows it: "unchanged" needs a narrow one, not just one around zero."""
    narrow = max(-row["difference_low"], row["difference_high"]) <= NARROW
    same = "unchanged" if narrow else "not significantly changed"
    return {BETTER: "improved", SAME: same, WORSE: "harmed"}[standing(row)]


def findings(summary: Sequence[Row]) -> list[str]:
    """What a reader should not miss: where an entry loses and what it needs."""
    table, shifts, found = headline(summary), shift_names(summary), []
    best, alone = best_entry(summary), best_entry(summary, single=True)
    if best and table[best, _scope(summary)]["needs_batch"]:
        text = f"{best}{DAGGER} needs a batch: it cannot answer for one image alone."
        row = table.get((alone or "", _scope(summary)))
        if row and row["difference_low"] is not None:
            text += f" Of those that can, {alone} is best: {percent(row['value'])} %, {difference(row)} points."
        found.append(text)
    for entry in names(summary, "entry"):
        rows = [table[entry, s] for s in (CLEAN, *shifts) if (entry, s) in table]
        if worse := [row for row in rows if standing(row) == WORSE]:
            worst = sorted(worse, key=lambda row: row["difference_to_source"])[:3]
            where = ", ".join(f"{row['shift']} ({points(row['difference_to_source'])})" for row in worst)
            if len(worse) > len(worst):
                where = f"{len(worse)} of {len(rows)} conditions, most on {where}"
            found.append(f"{label(worse[0])} is significantly worse than {SOURCE} on {where}.")
    return found
