"""One image through a predictor when it is loaded: what would fail in the first call is said of the folder instead."""

from __future__ import annotations

import torch

from diffcern.errors import DiffcernError, first_line
from diffcern.predictors.base import Predictor


@torch.no_grad()
def check_answer(predictor: Predictor, name: str) -> Predictor:
    """The predictor. Raises DiffcernError where its network does not take what its processor makes of an image, answers
    with what is no number, or has other outputs than it has names."""
    try:
        output = predictor(torch.full((1, 3, 64, 64), 0.5))
    except Exception as error:  # every network has its own
        raise DiffcernError(
            f"the network of {name} cannot take its images as they are prepared ({first_line(error)}): its "
            "configuration files belong to different models, or one was changed"
        ) from error
    if not torch.isfinite(output).all():
        raise DiffcernError(
            f"{name} answers a grey image with NaN or infinity: one of its files is damaged: restore or fetch it again"
        )
    if predictor.kind.classes and output.shape[1] != len(predictor.class_names):
        raise DiffcernError(
            f"{name} has {output.shape[1]} outputs, and names for {len(predictor.class_names)} classes: "
            "correct the names in its configuration"
        )
    return predictor
