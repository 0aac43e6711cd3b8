"""Question answering by choices: the answer of highest probability, and how often it is right, by kind of question.

Of rows as `run/answer.py` writes them: an answer to each question about the image as given ("before"), about the
purified image ("purified"), and of both together ("after").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffcern.metrics import wilson

BRANCHES = ("before", "purified", "after")
CHANGE = "after - before"
RESAMPLES = 2000


def accuracies(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Over all rows and over those of each kind, of each answer that there is: accuracy with Wilson's 95 % interval.

    Where there are answers before and after, also the change, with a 95 % percentile bootstrap over questions. value,
    ci_low and ci_high are fractions; n counts the rows.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {"all": list(rows)}
    for row in rows:
        if row["kind"]:
            groups.setdefault(row["kind"], []).append(row)
    table = []
    for group, members in groups.items():
        right = {
            branch: np.array([row[branch] == row["truth"] for row in members])
            for branch in BRANCHES
            if members and branch in members[0]
        }
        found = {branch: (hits.mean(), *wilson(int(hits.sum()), len(hits))) for branch, hits in right.items()}
        if "after" in right:
            found[CHANGE] = change(right["before"], right["after"])
        for branch, (value, low, high) in found.items():
            numbers = {"value": float(value), "ci_low": float(low), "ci_high": float(high)}
            table.append({"group": group, "answer": branch, **numbers, "n": len(members)})
    return table


def change(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """The difference of two accuracies on the same questions, and its interval: from whether each is right."""
    count = len(before)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    shares = np.array([gained, lost, count - gained - lost]) / count
    draws = np.random.default_rng(0).multinomial(count, shares, RESAMPLES)  # what resampling the questions leaves
    low, high = np.percentile((draws[:, 0] - draws[:, 1]) / count, [2.5, 97.5])
    return (gained - lost) / count, float(low), float(high)
