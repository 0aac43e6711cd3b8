"""Image-text pairs and questions by name: of tables, and of the embedded scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from diffcern.data.pairs import Pairs, caption_pairs, winoground
from diffcern.data.questions import Questions, question_table
from diffcern.data.scenes import NAMES, asking, matching, side_within
from diffcern.errors import UsageError, unknown


def load_pairs(name: str, max_side: int | None = None) -> Pairs:
    """The images and captions that `name` stands for: one of the forms in `PAIR_FORMS`, or a path to a .parquet file.

    max_side: see `images.decode`. Raises `UsageError` for an unknown name, `DiffcernError` for data that are missing
    or cannot be used.
    """
    prefix, colon, rest = name.partition(":")
    if colon and prefix in PAIRS:
        if not rest:
            raise UsageError(f"nothing follows {prefix!r} in the name of the pairs; the form is {PAIR_FORMS[prefix]}.")
        return PAIRS[prefix](Path(rest).expanduser(), max_side)
    if name.endswith(".parquet"):
        return caption_pairs(Path(name).expanduser(), max_side)
    raise unknown("image-text pairs", name, [*PAIR_FORMS.values(), "FILE.parquet"])


def _embedded_pairs(path: Path, max_side: int | None) -> Pairs:
    if path.as_posix() not in NAMES:
        raise unknown("embedded pairs", path.as_posix(), NAMES)
    return matching.pairs(NAMES[path.as_posix()], side=side_within(max_side))


PAIRS: dict[str, Callable[[Path, int | None], Pairs]] = {
    "winoground": winoground,
    "pairs": caption_pairs,
    "embedded": _embedded_pairs,
}
PAIR_FORMS = {
    "winoground": "winoground:PATH",
    "pairs": "pairs:FILE.parquet",
    "embedded": "embedded:scenes[/SPLIT]",
}


def load_questions(name: str, max_side: int | None = None) -> Questions:
    """The questions that `name` stands for: one of the forms in `QUESTION_FORMS`.

    max_side: see `images.decode`. Raises `UsageError` for an unknown name, `DiffcernError` for data that are missing
    or cannot be used.
    """
    prefix, colon, rest = name.partition(":")
    if not colon or prefix not in QUESTIONS:
        raise unknown("questions", name, QUESTION_FORMS.values())
    if not rest:
        raise UsageError(
            f"nothing follows {prefix!r} in the name of the questions; the form is {QUESTION_FORMS[prefix]}."
        )
    return QUESTIONS[prefix](rest, max_side)


def _embedded_questions(rest: str, max_side: int | None) -> Questions:
    if rest not in NAMES:
        raise unknown("embedded questions", rest, NAMES)
    return asking.questions(NAMES[rest], side=side_within(max_side))


QUESTIONS: dict[str, Callable[[str, int | None], Questions]] = {
    "embedded": _embedded_questions,
    "questions": question_table,
}
QUESTION_FORMS = {"embedded": "embedded:scenes[/SPLIT]", "questions": "questions:FILE.parquet"}
