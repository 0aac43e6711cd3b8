"""Training data with questions: images and what is asked about each, read once into memory, in a model's tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from rich.progress import track
from torch import Generator, Tensor

from diffcern.data import Questions, Scenes, load_dataset, load_questions
from diffcern.data.questions import Asked
from diffcern.data.scenes.asking import QUESTION_KINDS, ask
from diffcern.errors import DiffcernError, UsageError
from diffcern.fingerprints import digest
from diffcern.predictors.question_answering import SLOT, Answerer
from diffcern.train.images import Size, read_pixels
from diffcern.words import check_words

DRAWS = 4  # questions of one kind that are asked about a scene, where it leaves so many


def load_asked(name: str) -> Questions:
    """Questions to train on: "embedded:scenes/SPLIT", of every kind about every scene, or as `load_questions`.

    Raises `UsageError` for an unknown name or images without questions, `DiffcernError` for data that cannot be used.
    """
    if not name.startswith("embedded:"):
        return load_questions(name)
    dataset = load_dataset(name)
    if not isinstance(dataset, Scenes):
        raise UsageError(f"{name} has no questions; embedded:scenes/train has, and questions:FILE.parquet")
    asked = []
    for row in track(range(len(dataset)), f"asking about {dataset.name}", transient=True):
        scene = dataset.scene(row)
        for kind in QUESTION_KINDS:
            texts = dict.fromkeys(text for seed in range(DRAWS) if (text := ask(scene, kind, seed)))
            asked += [Asked(f"{scene.id}-{kind}-{k}", (dataset, row), *text, kind) for k, text in enumerate(texts)]
    return Questions(f"{dataset.name}/{dataset.split}", asked)


@dataclass(frozen=True)
class QuestionTable:
    """Images `[N, 3, size, size]` uint8 and what is asked about them.

    prefix: the tokens before every question, image and all. tokens: `[U, L]`, what follows them in each of U different
    questions, its answer and the end, padded; answers: `[U, L]` bool, which of these are answer or end. asked: `[N,
    M]`, the questions about each image by number, padded with -1.
    """

    images: Tensor
    prefix: Tensor
    tokens: Tensor
    answers: Tensor
    asked: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """Tells apart what is asked about the images."""
        return digest([self.tokens.tolist(), self.asked.tolist()])

    def draw(self, index: Tensor, count: int, rng: Generator) -> Tensor:
        """`count` different questions about each image at random, `[B, count]` numbers; -1 where there are fewer."""
        asked = self.asked[index]
        order = torch.rand(asked.shape, generator=rng).masked_fill(asked < 0, -1.0).argsort(1, descending=True)
        return asked.gather(1, order)[:, :count]


def read_asked(answerer: Answerer, data: Questions, size: Size) -> QuestionTable:
    """Decodes and resizes every image that something is asked about; what is asked in the answerer's tokens.

    Raises UsageError for words that it does not know, DiffcernError for no questions or too many pixels.
    """
    if not len(data):
        raise DiffcernError(f"{data.name} holds no questions: give data that have some")
    numbers: dict[tuple[str, str], int] = {}
    groups: dict[tuple[int, int], list[int]] = {}  # by image
    for entry in data.asked:
        source, row = entry.image
        number = numbers.setdefault((entry.question, entry.answer), len(numbers))
        groups.setdefault((id(source), row), []).append(number)
    first = {(id(entry.image[0]), entry.image[1]): k for k, entry in reversed(list(enumerate(data.asked)))}
    images = read_pixels(data.name, (data[first[key]].image for key in groups), len(groups), size)
    prefix, tokens, answers = _tokens(answerer, numbers)
    asked = torch.full((len(groups), max(map(len, groups.values()))), -1)
    for row, own in enumerate(groups.values()):
        asked[row, : len(own)] = torch.tensor(own)
    return QuestionTable(images, prefix, tokens, answers, asked)


def _tokens(answerer: Answerer, texts: Iterable[tuple[str, str]]) -> tuple[Tensor, Tensor, Tensor]:
    """`prefix`, `tokens` and `answers` of a table, from questions with their answers."""
    tokenizer, image = answerer.tokenizer, answerer.processor.image_token_id
    texts = list(texts)
    prompts = [answerer.template.replace(SLOT, question) for question, _ in texts]
    full = [answerer.answered(prompt, answer) for prompt, (_, answer) in zip(prompts, texts, strict=True)]
    asked, whole = (tokenizer(part, verbose=False)["input_ids"] for part in (prompts, full))
    start = asked[0].index(image) + 1
    rows = [[*ids[start:], tokenizer.eos_token_id] for ids in whole]
    limit = answerer.limit - start - answerer.image_tokens + 2  # the end is not read
    for text, row in zip(texts, rows, strict=True):
        if tokenizer.unk_token_id in row:
            check_words(tokenizer, " ".join(text))
        if len(row) > limit:
            raise UsageError(f"{text[0]!r} with its answer has {len(row)} tokens, and {limit} can be read: shorten it")
    tokens = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id or 0)
    answers = torch.zeros(tokens.shape, dtype=torch.bool)
    for k, (row, prompt) in enumerate(zip(rows, asked, strict=True)):
        tokens[k, : len(row)] = torch.tensor(row)
        answers[k, len(prompt) - start : len(row)] = True
    return torch.tensor(answerer.tokens(prompts[0])[: start - 1 + answerer.image_tokens]), tokens, answers
