"""The errors a user can cause, each saying what to do; anything else that is raised is a bug of ours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DiffcernError(Exception):
    """Something the user gave cannot be used; the message says what and how to mend it (exit code 1)."""


class UsageError(DiffcernError):
    """A name, option or specification that does not exist or does not fit (exit code 2)."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that does not exist: lists the nearest names first, then all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return UsageError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known) or 'none'}.")


def first_line(error: Exception) -> str:
    """What happened, in short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
