"""A model that answers questions fine-tuned on images with questions: projector and language model, the vision tower
left as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffcern.data import Questions
from diffcern.errors import DiffcernError
from diffcern.predictors.question_answering import Answerer, save_answerer
from diffcern.rng import generator
from diffcern.train.asked import QuestionTable, read_asked
from diffcern.train.finetune import Descent, fine_tune
from diffcern.train.question_answering import answer_loss
from diffcern.watching import Report


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

    @property
    def descent(self) -> Descent:
        names = ("epochs", "batch_size", "learning_rate", "weight_decay", "warmup", "ema_decay")
        return Descent(**{name: getattr(self, name) for name in names}, clip=1.0)


class QuestionLessons:
    """`Lessons` of questions about images; a tenth of the images (at least one) is held out. Trains the answerer that
    it is given."""

    def __init__(self, answerer: Answerer, data: Questions, tuning: Tuning, seed: int) -> None:
        height, width = data[0].image.shape[-2:]  # the prior's
        self._answerer, self._tuning, self._seed = answerer, tuning, seed
        self._table = read_asked(answerer, data, (height, width))
        images = len(self._table)
        if images < 2:
            raise DiffcernError(f"{data.name} holds questions about 1 image: fine-tuning needs 2, and one is held out")
        order = torch.randperm(images, generator=generator(seed, "validation"))
        self._held, self._rest = order[: max(1, images // 10)], order[max(1, images // 10) :]
        for name, parameter in answerer.model.named_parameters():
            parameter.requires_grad_("vision_tower" not in name)
        self.model, self.count = answerer.model, len(self._rest)

    def losses(self, epoch: int, batches: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        self._answerer.train()
        for number, batch in enumerate(batches):
            index = self._rest[torch.tensor(batch)]
            asked = self._table.draw(index, self._tuning.questions, generator(self._seed, "tuning", epoch, number))
            yield answer_loss(self._answerer, self._table, index, asked)

    def validation_loss(self) -> float:
        return loss_on(self._answerer, self._table, self._held, self._tuning.batch_size)


@dataclass(frozen=True)
class AnswererLearner:
    """A `Learner` of SDA, which changes the answerer in place."""

    answerer: Answerer
    tuning: Tuning

    def finished(self, place: Path) -> bool:
        return (place / "config.json").is_file()

    def learn(self, dataset: Questions, place: Path, *, seed: int, report: Report) -> list[float]:
        lessons = QuestionLessons(self.answerer, dataset, self.tuning, seed)
        losses = fine_tune(lessons, self.tuning.descent, place, seed=seed, report=report)
        save_answerer(self.answerer.eval().requires_grad_(False), place, torch.float32)
        return losses


@torch.no_grad()
def loss_on(answerer: Answerer, table: QuestionTable, index: Tensor, batch_size: int) -> float:
    """The mean over the images of the mean loss of all their questions, in eval mode."""
    answerer.eval()
    total = 0.0
    for rows in index.split(batch_size):
        total += answer_loss(answerer, table, rows, table.asked[rows]).item() * len(rows)
    return total / len(index)
