"""Images and questions about them, each with its answer: for models that answer questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map

from diffcern.data.base import Dataset
from diffcern.data.images import UnreadableImage
from diffcern.data.names import unique
from diffcern.data.parquet import ParquetImages, read_columns
from diffcern.errors import DiffcernError


@dataclass(frozen=True)
class Question:
    """Image `[3, H, W]` in [0, 1], and a question with its answer.

    choices: what may be answered, the answer among them; () where anything may. kind: what is asked for, "" where
    the data do not say.
    """

    id: str
    image: Tensor
    question: str
    answer: str
    choices: tuple[str, ...] = ()
    kind: str = ""


# DataLoader(...) gives lists of them: images of several sizes and texts do not stack.
default_collate_fn_map[Question] = lambda items, *, collate_fn_map=None: list(items)


@dataclass(frozen=True)
class Asked:
    """A question before its image is decoded: row `image[1]` of the data set `image[0]`."""

    id: str
    image: tuple[Dataset, int]
    question: str
    answer: str
    choices: tuple[str, ...] = ()
    kind: str = ""


class Questions:
    """Questions in order; all but the images is known without decoding one.

    `questions[i]` takes negative indices, raises IndexError past the end and `UnreadableImage`, which names the
    question, where its image cannot be decoded. Raises `DiffcernError` for ids that are not unique.
    """

    def __init__(self, name: str, asked: Sequence[Asked]) -> None:
        self.name = name
        self.asked = asked
        self.ids = unique([entry.id for entry in asked], name)

    def __len__(self) -> int:
        return len(self.asked)

    def __getitem__(self, index: int) -> Question:
        asked = self.asked[index]
        source, row = asked.image
        try:
            image = source[row].image
        except UnreadableImage as error:
            raise UnreadableImage(asked.id, error.reason) from error
        return Question(asked.id, image, asked.question, asked.answer, asked.choices, asked.kind)

    def __iter__(self) -> Iterator[Question]:
        return (self[index] for index in range(len(self)))


def question_table(name: str, max_side: int | None = None) -> Questions:
    """A table with an image, a question and its answer in every row, in Parquet as of `ParquetImages`.

    Columns: image, question, answer; optional: id, kind, choices (a list of texts). Raises `DiffcernError` for
    missing columns, for a question or an answer that is empty, and for choices that lack the answer.
    """
    path = Path(name).expanduser()
    images = ParquetImages(path, max_side=max_side, labelled=False)
    values = read_columns(path, ["question", "answer"], ["kind", "choices"])
    count = len(images)
    kinds, lists = values.get("kind", [None] * count), values.get("choices", [None] * count)
    asked = []
    for row, id_ in enumerate(images.ids):
        question, answer = (_text(values[column][row], column, id_, path) for column in ("question", "answer"))
        choices = _choices(lists[row], answer, id_, path)
        kind = _text(kinds[row], "kind", id_, path) if kinds[row] not in (None, "") else ""
        asked.append(Asked(id_, (images, row), question, answer, choices, kind))
    return Questions(images.name, asked)


def _choices(values: object, answer: str, id_: str, where: Path) -> tuple[str, ...]:
    if values is None or values == []:
        return ()
    if not isinstance(values, list):
        raise DiffcernError(f"{where}: choices of question {id_!r} must be a list of texts, but is {values!r}.")
    choices = tuple(_text(value, "a choice", id_, where) for value in values)
    if answer not in choices:
        raise DiffcernError(
            f"{where}: the answer {answer!r} to question {id_!r} is not among its choices, {choices}. Add it to them."
        )
    return choices


def _text(value: object, column: str, id_: str, where: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DiffcernError(f"{where}: {column} of question {id_!r} must be a text, but is {value!r}.")
    return value
