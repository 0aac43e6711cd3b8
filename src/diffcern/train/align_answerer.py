"""SDA's three stages (arXiv 2406.04295) for question answering: images of captions, purified as targets will be, and
questions that the captions answer, on which projector and language model are fine-tuned.

For how the images are made see `train/stages.py`. A caption names some of the things in an image, and the generator may
draw more. So nothing is asked about numbers; and what colour or shape a thing has is asked where the caption names no
other such thing, though the image may show one.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from diffcern.alignment import Alignment
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
from diffcern.predictors.question_answering import Answerer, save_answerer
from diffcern.priors import TextPrior
from diffcern.purifier import Purifier
from diffcern.rng import generator as generator_of
from diffcern.train.asked import QuestionTable, read_asked
from diffcern.train.finetune import Report
from diffcern.train.loop import CHECKPOINT, Schedule, train
from diffcern.train.question_answering import answer_loss
from diffcern.train.stages import synthesise
from diffcern.types import Condition

QUESTIONS = "questions.parquet"  # what is asked about the images, beside their folders
COLUMNS = ("image", "caption", "question", "answer", "choices", "kind")

Text = tuple[str, str, tuple[str, ...], str]  # question, answer, choices, kind


@dataclass(frozen=True)
class Told:
    """An image to be made: its id, the caption that it is made of, and questions that the caption answers."""

    id: str
    caption: str
    questions: tuple[Text, ...]

    @property
    def rows(self) -> list[dict[str, object]]:
        """Of the table of questions."""
        return [dict(zip(COLUMNS, (self.id, self.caption, *text), strict=True)) for text in self.questions]


@dataclass(frozen=True)
class Tuning:
    """Of the fine-tuning: AdamW under a cosine, weights averaged. questions: about an image in one step."""

    epochs: int = 10
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    batch_size: int = 32
    warmup: float = 0.1  # fraction of the steps
    ema_decay: float = 0.99
    questions: int = 4


def told_of(name: str, count: int, seed: int) -> list[Told]:
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
    told: list[Told] = []
    for row in torch.randperm(len(dataset), generator=generator_of(seed, "captions", dataset.split)).tolist():
        scene = dataset.scene(row)
        said = statements(scene)
        related = [statement for statement in said if statement.relation in OPPOSITE]
        if said:
            statement = Dice(generator_of(seed, "told", scene.id)).choice(related or said)
            told.append(Told(scene.id, statement.text, tuple(answered_by(statement))))
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


def digest_of(told: Sequence[Told]) -> str:
    """Tells apart what is asked."""
    return digest([row for item in told for row in item.rows])


def asked_images(
    folder: Path,
    alignment: Alignment,
    told: Sequence[Told],
    generator: TextPrior,
    purifier: Purifier,
    *,
    batch_size: int,
    report: Report,
) -> Questions:
    """The first two stages into the folder; the questions about their images.

    batch_size: images at a time. Raises DiffcernError as `Alignment.begin`, UsageError for captions that the generator
    cannot read.
    """
    generator.prompts([item.caption for item in told[:1]])  # before anything is written
    alignment.begin(folder)
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row for item in told for row in item.rows]), buffer)
    write_whole(folder / QUESTIONS, buffer.getvalue())
    captions = {item.id: item.caption for item in told}

    def read(batch: Sequence[str]) -> Condition:
        return generator.prompts([captions[id] for id in batch])

    ids = list(captions)
    images = synthesise(folder, alignment, ids, read, generator, purifier, batch_size=batch_size, report=report)
    return questions_about(images, folder / QUESTIONS)


def questions_about(images: Path, table: Path) -> Questions:
    """The questions in a table that `asked_images` wrote, about the images in one of its folders."""
    source, values = ImageFolder(images), read_columns(table, COLUMNS)
    rows = {Path(id).stem: row for row, id in enumerate(source.ids)}
    asked = []
    for number, (id, _, question, answer, choices, kind) in enumerate(zip(*values.values(), strict=True)):
        asked.append(Asked(f"{id}-{number}", (source, rows[id]), question, answer, tuple(choices), kind))
    return Questions(f"{images.parent.name}/{images.name}", asked)


def tune(answerer: Answerer, data: Questions, tuning: Tuning, folder: Path, *, seed: int) -> list[float]:
    """Fine-tunes projector and language model, the vision tower left as it is, and saves whichever answers better.

    A tenth of the images (at least one) is held out: returns the losses on them before and after, the lower one's
    weights being those that are saved (the answerer is changed in place). Empty where the folder is finished. Goes on
    from a checkpoint; raises DiffcernError for one that was made otherwise, KeyboardInterrupt at Ctrl-C.
    """
    if (folder / "config.json").is_file():
        return []
    height, width = data[0].image.shape[-2:]  # the prior's
    table = read_asked(answerer, data, (height, width))
    if len(table) < 2:
        raise DiffcernError(f"{data.name} holds questions about 1 image: fine-tuning needs 2, and one is held out")
    order = torch.randperm(len(table), generator=generator_of(seed, "validation"))
    held, rest = order[: max(1, len(table) // 10)], order[max(1, len(table) // 10) :]
    start = {name: value.clone() for name, value in answerer.model.state_dict().items()}
    for name, parameter in answerer.model.named_parameters():
        parameter.requires_grad_("vision_tower" not in name)
    losses = [loss_on(answerer, table, held, tuning.batch_size)]

    def loss_at(step: int) -> Tensor:
        rng = generator_of(seed, "tuning", step)
        index = rest[torch.randint(len(rest), (tuning.batch_size,), generator=rng)]
        return answer_loss(answerer, table, index, table.draw(index, tuning.questions, rng))

    options = {name: getattr(tuning, name) for name in ("weight_decay", "warmup", "ema_decay")}
    schedule = Schedule(tuning.epochs * len(rest), tuning.batch_size, tuning.learning_rate, seed=seed, **options)
    outcome = train(answerer.train(), loss_at, schedule, folder, {"asked": table.digest, **asdict(tuning)})
    if not outcome.finished:
        raise KeyboardInterrupt
    answerer.eval().requires_grad_(False)
    losses.append(loss_on(answerer, table, held, tuning.batch_size))
    if not losses[1] < losses[0]:
        answerer.model.load_state_dict(start)
    save_answerer(answerer, folder, torch.float32)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return losses


@torch.no_grad()
def loss_on(answerer: Answerer, table: QuestionTable, index: Tensor, batch_size: int) -> float:
    """The mean over the images of the mean loss of all their questions, in eval mode."""
    answerer.eval()
    total = 0.0
    for rows in index.split(batch_size):
        total += answer_loss(answerer, table, rows, table.asked[rows]).item() * len(rows)
    return total / len(index)


def _table(path: Path, count: int, seed: int) -> list[Told]:
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
    return [Told(f"{k:06d}", caption, tuple(texts)) for k, (caption, texts) in enumerate(chosen)]
