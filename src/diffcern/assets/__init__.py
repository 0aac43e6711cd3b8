"""Small weights trained by this project, each folder with a model card."""

from __future__ import annotations

from pathlib import Path

from diffcern.errors import unknown

FOLDER = Path(__file__).parent


def embedded_names(kind: str) -> list[str]:
    """Names NAME for which assets/NAME-kind exists; kind is "prior" or "predictor"."""
    return sorted(path.name.removesuffix(f"-{kind}") for path in FOLDER.glob(f"*-{kind}"))


def asset(name: str, kind: str) -> Path:
    """The folder of an embedded model. Raises UsageError listing what exists."""
    if name not in embedded_names(kind):
        raise unknown(f"embedded {kind}", f"embedded:{name}", [f"embedded:{n}" for n in embedded_names(kind)])
    return FOLDER / f"{name}-{kind}"
