"""Damage to bytes, texts and JSON-like values; every function is a function of its random generator."""

from __future__ import annotations

import codecs
import copy
import math
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, "", " ", "x", "0.5", "nan", "\x00", "é", [], {}, [1, 2], ["a"], {"a": 1}, True, False),
    *(0, -1, 1, 3, 0.5, -0.5, 10**12, -(10**12), 2**63, 10**30, 1e300, math.nan, math.inf, -math.inf),
)


def damaged_bytes(data: bytes, rng: Random) -> tuple[str, bytes]:
    """One of the ways in which a file breaks."""
    way = rng.choice([_flip, _flip, _flip, _truncate, _cut, _repeat, _insert, _zero, _replace])
    return way.__name__.strip("_"), way(data, rng)


def _flip(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _span(data: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randint(1, max(1, len(data) // 4)))


def _cut(data: bytes, rng: Random) -> bytes:
    start, stop = _span(data, rng)
    return data[:start] + data[stop:]


def _repeat(data: bytes, rng: Random) -> bytes:
    start, stop = _span(data, rng)
    return data[:stop] + data[start:]


def _insert(data: bytes, rng: Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice([1, 2, 4, 64])) + data[place:]


def _zero(data: bytes, rng: Random) -> bytes:
    start, stop = _span(data, rng)
    return data[:start] + bytes(stop - start) + data[stop:]


def _replace(data: bytes, rng: Random) -> bytes:
    return rng.choice([b"", b"\0", b"{}", b"[]", b"null", rng.randbytes(200), b"\xff\xfe", b"\n" * 10])


def encoded(text: str, rng: Random) -> tuple[str, bytes, bool]:
    """A text in an encoding; whether that can be read: UTF-8, or another Unicode with its mark."""
    name = rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "latin-1", "cp037"])
    data = text.encode(name, "replace")
    readable = name in ("utf-8", "utf-8-sig", "utf-16", "utf-32") or (name == "latin-1" and text.isascii())
    return name, data, readable and not (name == "latin-1" and data.startswith(codecs.BOM_UTF8))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of everything in nested dictionaries and lists, the whole first."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def changed_value(
    value: Any, rng: Random, allowed: Callable[[tuple[Any, ...], Any, Any], bool] = lambda path, old, new: True
) -> tuple[str, Any]:
    """The value with something in it replaced by something odd, left out, or beside a key too many.

    allowed: whether a change (its place, what was there, what is there now; None where it is left out) is one to make.
    """
    for _ in range(100):
        path = rng.choice(list(places(value)))
        inner = at(value, path)
        way = rng.choice(["odd", "odd", "odd", "left out", "added"])
        new = copy.deepcopy(value)
        if way == "odd":
            odd = rng.choice(ODD)
            if not allowed(path, inner, odd):
                continue
            if not path:
                return f"all of it is {odd!r}", odd
            at(new, path[:-1])[path[-1]] = odd
            return f"{'.'.join(map(str, path))} is {odd!r:.40}", new
        if way == "left out" and path and allowed(path, inner, None):
            del at(new, path[:-1])[path[-1]]
            return f"{'.'.join(map(str, path))} is left out", new
        if way == "added" and isinstance(inner, dict):
            key = rng.choice(["x", "", "a.b", "é"])
            at(new, path)[key] = rng.choice(ODD)
            return f"{'.'.join(map(str, (*path, key)))} is added", new
    return "nothing", value
