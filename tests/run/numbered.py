"""Rows of 25 numbers into parts, one of them broken."""

from __future__ import annotations

import pyarrow as pa

from diffcern.run.parts import Parts

SCHEMA = pa.schema([("id", pa.string()), ("value", pa.int64()), ("error", pa.string())])
IDS = [f"{number:03}" for number in range(25)]


def row(place):
    return {"id": IDS[place], "value": place, "error": "broken" if place == 7 else None}


def opened(out, ids=IDS, settings=None, **how):
    return Parts(out, settings or {"seed": 0}, ids, schema=SCHEMA, **how)


def filled(table, places=None):
    for place in [place for stretch in table.todo() for place in stretch] if places is None else places:
        table.add(row(place))
    return table
