"""What is asked of the models: how a predictor's output becomes a prior's condition, and how answers are measured."""

from diffcern.predictors.base import Predictor
from diffcern.priors.base import Prior
from diffcern.tasks.base import Task
from diffcern.tasks.classification import Classification
from diffcern.tasks.depth import Depth
from diffcern.tasks.segmentation import Segmentation

__all__ = ["MAP_TASKS", "TASKS", "Classification", "Depth", "Segmentation", "Task", "task_of"]
MAP_TASKS: dict[str, type[Segmentation] | type[Depth]] = {task.name: task for task in (Segmentation, Depth)}
TASKS: dict[str, type[Classification] | type[Segmentation] | type[Depth]] = {
    Classification.name: Classification,
    **MAP_TASKS,
}


def task_of(predictor: Predictor, prior: Prior | None) -> Task:
    """What the predictor is for, joined to what the prior can be told. Raises DiffcernError where names do not meet."""
    return TASKS[predictor.task].joining(predictor, prior)
