"""What is asked of the models: how a predictor's output becomes a prior's condition."""

from diffcern.tasks.classification import Classification

__all__ = ["Classification"]
