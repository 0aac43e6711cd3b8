"""What a row answers about, as it is now: an answer is none any more where that has changed since."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffcern.data import Dataset, Pairs, Questions, Subset
from diffcern.errors import DiffcernError
from diffcern.fingerprints import digest

Digests = Callable[[str], str]  # by id


def of_images(dataset: Dataset) -> Digests:
    """Of the encoded image; "" where the data set makes its images, or has lost this one."""
    rows = {id: index for index, id in enumerate(dataset.ids)}
    return lambda id: _content(dataset, rows[id]) if id in rows else ""


def of_examples(pairs: Pairs) -> Digests:
    """Of the images and captions of an example."""
    entries = {entry.id: entry for entry in pairs.entries}

    def found(id: str) -> str:
        return _whole([_content(*image) for image in entries[id].images], entries[id].captions)

    return lambda id: found(id) if id in entries else ""


def of_questions(questions: Questions) -> Digests:
    """Of the image, the question and what may be answered."""
    asked = {entry.id: entry for entry in questions.asked}

    def found(id: str) -> str:
        entry = asked[id]
        return _whole([_content(*entry.image)], (entry.question, entry.answer, entry.kind, *entry.choices))

    return lambda id: found(id) if id in asked else ""


def _whole(images: list[str], texts: tuple[str, ...]) -> str:
    return digest([images, texts])


def _content(dataset: Dataset, row: int) -> str:
    source: Any = dataset
    while isinstance(source, Subset):
        source, row = source.source, source.indices[row]
    if not hasattr(source, "content"):
        return ""
    try:
        found = source.content(row)
        data = found.read_bytes() if isinstance(found, Path) else found
    except (OSError, DiffcernError):  # an answer that it cannot be read is one, too
        return "unreadable"
    return hashlib.blake2b(data, digest_size=8).hexdigest() if data is not None else ""
