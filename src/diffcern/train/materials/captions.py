"""SDA for question answering: images of captions, and questions that the captions answer.

A caption names some of the things in an image, and the generator may
draw more. So nothing is asked about numbers; and what colour or shape a thing has is asked where the caption names no
other such thing, though the image may show one.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from diffcern.data import ImageFolder, Questions, Scenes, load_dataset
from diffcern.data.parquet import read_columns
from diffcern.data.questions import Asked
from diffcern.data.scenes.asking import DISTANCES, SIDES
from diffcern.data.scenes.language import OPPOSITE, Statement, statements
from diffcern.data.scenes.layout import COLOURS, Dice
from diffcern.data.scenes.shapes import CLASSES
from diffcern.errors import DiffcernError, UsageError
from diffcern.files import write_whole
from diffcern.fingerprints import digest
from diffcern.priors import Prior, TextPrior
from diffcern.rng import generator as generator_of
from diffcern.train.align import Telling

QUESTIONS_FILE = "questions.parquet"  # what is asked about the images, beside their folders
COLUMNS = ("image", "caption", "question", "answer", "choices", "kind")

Text = tuple[str, str, tuple[str, ...], str]  # question, answer, choices, kind


@dataclass(frozen=True)
class Drawing:
    """An image to be made: its id, the caption that it is made of, and questions that the caption answers."""

    id: str
    caption: str
    questions: tuple[Text, ...]

    @property
    def rows(self) -> list[dict[str, object]]:
        """Of the table of questions."""
        return [dict(zip(COLUMNS, (self.id, self.caption, *text), strict=True)) for text in self.questions]


def drawings_of(name: str, count: int, seed: int) -> list[Drawing]:
    """`count` captions with their questions: "embedded:scenes/SPLIT", one of each scene that has something to tell, or
    FILE.parquet with the columns caption, question, answer, choices and (optional) kind: its captions in a seeded
    order, repeated where they are fewer.

    Raises `UsageError` for another name and for more scenes than there are, `DiffcernError` for data that cannot be
    used.
    """
    if name.endswith(".parquet"):
        return _table(Path(name).expanduser(), count, seed)
    dataset = load_dataset(name) if name.startswith("embedded:") else None
    if not isinstance(dataset, Scenes):
        raise UsageError(f"captions with questions are embedded:scenes/train or FILE.parquet, not {name!r}")
    told: list[Drawing] = []
    for row in torch.randperm(len(dataset), generator=generator_of(seed, "captions", dataset.split)).tolist():
        scene = dataset.scene(row)
        said = statements(scene)
        related = [statement for statement in said if statement.relation in OPPOSITE]
        if said:
            statement = Dice(generator_of(seed, "told", scene.id)).choice(related or said)
            told.append(Drawing(scene.id, statement.text, tuple(answered_by(statement))))
        if len(told) == count:
            return told
    raise UsageError(f"{name} tells of {len(told)} scenes, not {count}")


def answered_by(statement: Statement) -> list[Text]:
    """The questions that a statement about scenes answers, in the words of `asking.ask`."""
    names = [name for name in (statement.first, statement.second) if name is not None]
    shapes, colours = [shape for _, shape in names], [colour for colour, _ in names]
    found: list[Text] = []
    for colour, shape in names:
        if shapes.count(shape) == 1:
            found.append((f"what colour is the {shape}?", colour, tuple(COLOURS), "colour"))
        if colours.count(colour) == 1:
            found.append((f"which shape is {colour}?", shape, CLASSES, "shape"))
    for kind, answers, words in (
        ("side", SIDES, "left or right of"),
        ("distance", DISTANCES, "nearer or farther than"),
    ):
        if statement.second is not None and statement.relation in answers:
            first, second = (" ".join(name) for name in names)
            ways = ((first, second, statement.relation), (second, first, OPPOSITE[statement.relation]))
            for a, b, relation in ways:
                found.append((f"is the {a} {words} the {b}?", answers[relation], tuple(answers.values()), kind))
    return found


@dataclass(frozen=True)
class CaptionMaterial:
    """A `Material`: an image of each caption, and the questions that it answers."""

    scenes: Sequence[Drawing]

    @property
    def ids(self) -> Sequence[str]:
        return [item.id for item in self.scenes]

    @property
    def stated(self) -> Mapping[str, Any]:
        return {"prompts": tuple((item.caption,) for item in self.scenes)}

    @property
    def digest(self) -> Mapping[str, str]:
        return {"questions": digest([row for item in self.scenes for row in item.rows])}

    def telling(self, generator: Prior) -> Telling:
        if not isinstance(generator, TextPrior):
            raise UsageError("the generator does not read captions: give a text-to-image prior")
        generator.prompts([item.caption for item in self.scenes[:1]])  # can it read any?
        captions = {item.id: item.caption for item in self.scenes}
        return lambda batch: generator.prompts([captions[id] for id in batch])

    def write(self, folder: Path) -> None:
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([row for item in self.scenes for row in item.rows]), buffer)
        write_whole(folder / QUESTIONS_FILE, buffer.getvalue())

    def dataset(self, images: Path) -> Questions:
        return questions_about(images, images.parent / QUESTIONS_FILE)


def questions_about(images: Path, table: Path) -> Questions:
    """The questions in a table that a `CaptionMaterial` wrote, about the images in one of its folders."""
    source, values = ImageFolder(images), read_columns(table, COLUMNS)
    rows = {Path(id).stem: row for row, id in enumerate(source.ids)}
    asked = []
    for number, (id, _, question, answer, choices, kind) in enumerate(zip(*values.values(), strict=True)):
        asked.append(Asked(f"{id}-{number}", (source, rows[id]), question, answer, tuple(choices), kind))
    return Questions(f"{images.parent.name}/{images.name}", asked)


def _table(path: Path, count: int, seed: int) -> list[Drawing]:
    values = read_columns(path, ["caption", "question", "answer", "choices"], ["kind"])
    kinds = values.get("kind", [""] * len(values["caption"]))
    captions: dict[str, list[Text]] = {}
    for caption, question, answer, choices, kind in zip(*list(values.values())[:4], kinds, strict=True):
        listed = choices if isinstance(choices, list) else []
        texts = (caption, question, answer, *listed)
        if answer not in listed or not all(isinstance(text, str) and text.strip() for text in texts):
            raise DiffcernError(f"{path}: every row needs a caption, a question, and choices that hold the answer")
        captions.setdefault(caption, []).append((question, answer, tuple(choices), str(kind or "")))
    named = list(captions.items())
    order = torch.randperm(len(named), generator=generator_of(seed, "captions")).tolist()
    chosen = (named[order[k % len(named)]] for k in range(count))
    return [Drawing(f"{k:06d}", caption, tuple(texts)) for k, (caption, texts) in enumerate(chosen)]
