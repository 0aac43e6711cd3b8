"""What the tables of rows hold: the columns of each kind of work, whatever its rows say.

A column of which no row has a value is there all the same, in its type: a table of a thousand images can be put beside
one of ten.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from diffcern.data.pairs import TAGS
from diffcern.tasks.matching import CORRECTED, PLAIN
from diffcern.tasks.question_answering import BRANCHES

TEXT, TRUTH, WHOLE, NUMBER = pa.string(), pa.bool_(), pa.int64(), pa.float64()
NUMBERS = pa.list_(NUMBER)
END = [("seconds", NUMBER), ("error", TEXT)]
COST = [
    ("loss_first", NUMBER),
    ("loss_last", NUMBER),
    ("steps", WHOLE),
    ("nfe_forward", WHOLE),
    ("nfe_backward", WHOLE),
]
LABELS = [
    ("id", TEXT),
    ("before", TEXT),
    ("before_confidence", NUMBER),
    ("after", TEXT),
    ("after_confidence", NUMBER),
    ("changed", TRUTH),
]
MAPS = [("id", TEXT), ("file", TEXT), ("picture", TEXT), ("changed", NUMBER)]
CLASSIFIED = pa.schema(
    [
        ("id", TEXT),
        ("label", TEXT),
        ("confidence", NUMBER),
        ("ranked", TEXT),
        ("margin", NUMBER),
        ("margin_standard_error", NUMBER),
        ("nfe_forward", WHOLE),
        *END,
    ]
)

KNOWN = pa.schema([("id", TEXT), ("target", WHOLE), ("log_probabilities", NUMBERS), *END])


def adapted(maps: bool, batch: bool) -> pa.Schema:
    """maps: answers are. batch: the method reads the statistics of several images."""
    return pa.schema([*(MAPS if maps else LABELS), *COST, *([("batch", WHOLE)] if batch else []), *END])


def matched(prior: bool, tags: Collection[str], shortlist: bool = False, race: bool = False) -> pa.Schema:
    """prior: by errors, and not by similarities. tags: of `pairs.TAGS`, those that some example has. shortlist: rows
    say how many evaluations were differentiated; race: where it stopped, and how sure that is."""
    scores = [(name, TRUTH) for name in (*PLAIN, *(CORRECTED if prior else ()))]
    tables = ["errors", "unconditional"] if prior else ["similarities"]
    found = [(name, NUMBERS if name == "unconditional" else pa.list_(NUMBERS)) for name in tables]
    said = [*((name, TEXT) for name in TAGS if name in tags), ("captions", pa.list_(TEXT))]
    cost = [("nfe_forward", WHOLE)] if prior else []
    cost += [("nfe_backward", WHOLE)] if shortlist else []
    cost += [("stopped_after", WHOLE), ("standard_errors", NUMBER)] if race else []
    return pa.schema([("id", TEXT), *scores, *said, *found, *cost, *END])


def answered(purified: bool) -> pa.Schema:
    """purified: there are answers after purification too."""
    asked = [("id", TEXT), ("kind", TEXT), ("question", TEXT), ("truth", TEXT), ("choices", pa.list_(TEXT))]
    answers = []
    for branch in BRANCHES if purified else BRANCHES[:1]:
        answers += [(branch, TEXT), (f"{branch}_confidence", NUMBER), (f"{branch}_probabilities", NUMBERS)]
    return pa.schema([*asked, *answers, ("nfe_forward", WHOLE), *END])
