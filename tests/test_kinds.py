"""A task is a row of `kinds.KINDS` and a class in `tasks/`; nothing else asks for one by its name."""

import re
from pathlib import Path

import pytest
import torch

from diffcern.data.base import VOID
from diffcern.kinds import KINDS
from diffcern.tasks import MAP_TASKS, TASKS

SOURCE = Path(__file__).parents[1] / "src"
COMPARED = re.compile(rf'(==|!=) *"({"|".join(KINDS)})"')


def test_every_kind_has_its_task():
    assert list(TASKS) == list(KINDS)
    assert list(MAP_TASKS) == [name for name, kind in KINDS.items() if kind.dense]
    assert all(task.kind is KINDS[name] and task.name == name for name, task in TASKS.items())


def test_hardly_anything_compares_names_of_tasks():
    found = [f"{path.name}: {line}" for path in SOURCE.rglob("*.py") for line in path.read_text().splitlines()]
    assert len([line for line in found if COMPARED.search(line)]) < 3


@pytest.mark.parametrize("name", TASKS)
def test_an_average_of_one_answer_is_that_answer(name):
    kind = KINDS[name]
    shape = [2, 3, 4, 4][: kind.axes] if kind.classes else [2, 4, 4]
    output = torch.rand(shape, generator=torch.Generator().manual_seed(0)) + 0.5
    again = TASKS[name].from_average(TASKS[name].to_average(output))
    if kind.classes:
        assert torch.allclose(again.softmax(1), output.softmax(1), atol=1e-6)
    else:
        assert torch.equal(again, output)


@pytest.mark.parametrize("name", MAP_TASKS)
def test_truths_are_kept_as_they_are(name):
    task = MAP_TASKS[name]
    truth = torch.tensor([[0, 1], [VOID, 2]]) if task.kind.classes else torch.tensor([[0.0, 1.25], [65.535, 0.001]])
    assert torch.equal(task.decode(task.encode(truth), "a"), truth)


def test_how_far_answers_moved():
    logits = torch.eye(3)[torch.tensor([[0, 1], [2, 2]])].permute(2, 0, 1)
    other = torch.eye(3)[torch.tensor([[0, 1], [2, 0]])].permute(2, 0, 1)
    assert MAP_TASKS["segmentation"].change(logits, other) == 0.25
    assert MAP_TASKS["depth"].change(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.5, 2.0]])) == 0.25
