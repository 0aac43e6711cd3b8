"""How much memory this machine has, and what would not fit into it."""

from __future__ import annotations

import os

from diffcern.errors import UsageError


def installed() -> int:
    """Bytes of main memory; a very large number where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not POSIX
        return 2**63


def check_memory(what: str, needed: int, advice: str) -> None:
    """Raises UsageError where `what` needs more bytes than this machine has, and says how many."""
    if needed > installed():
        raise UsageError(
            f"{what} need {gigabytes(needed)} of memory, and this machine has {gigabytes(installed())}: {advice}"
        )


def gigabytes(count: int) -> str:
    """With three digits: 1.61 GB, 4,300,000 GB."""
    return f"{float(f'{count / 1e9:.3g}'):,.12g} GB" if count < 10**24 else f"10^{len(str(count)) - 10} GB"
