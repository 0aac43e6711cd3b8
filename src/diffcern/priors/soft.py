"""Soft labels for diffusers' class-conditional networks: a class is a point on the simplex, not an integer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffcern.errors import UsageError
from diffcern.types import Condition


class SoftEmbedding(nn.Module):
    """A label table that takes points on the simplex: weights `[B, K]` @ table `[K, D]`.

    Exactly the table's row for a one-hot weight; in fp32 also under autocast, so that this stays true.
    """

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.weight = table.weight

    def forward(self, weights: Tensor) -> Tensor:
        with torch.autocast(weights.device.type, enabled=False):
            return weights.to(self.weight.dtype) @ self.weight


def soften_labels(denoiser: nn.Module) -> None:
    """Replaces every class table of a diffusers model by a `SoftEmbedding` (DiT keeps one in each block).

    Parameter names stay, so weights load and save as before. Label dropout moves to whoever trains.
    """
    from diffusers.models.embeddings import LabelEmbedding

    for module in denoiser.modules():
        if isinstance(module, LabelEmbedding):
            module.dropout_prob = 0.0
            module.embedding_table = SoftEmbedding(module.embedding_table)
    if isinstance(getattr(denoiser, "class_embedding", None), nn.Embedding):
        denoiser.class_embedding = SoftEmbedding(denoiser.class_embedding)  # type: ignore[arg-type]


def class_weights(condition: Condition, classes: int, rows: int, like: Tensor) -> Tensor:
    """Weights `[B, rows]` of a label table for B = len(like): rows is `classes`, or one more where the table ends with
    a null class, which an empty condition means.

    Raises UsageError for an empty condition where there is no null class.
    """
    if condition.classes is not None:
        return F.pad(condition.classes, (0, rows - condition.classes.shape[1]))
    if rows == classes:
        raise UsageError(
            "this prior was trained with labels only: it has no unconditional form. Tell it classes, or "
            "give another prior"
        )
    null = like.new_full((len(like),), classes, dtype=torch.long)
    return F.one_hot(null, rows).to(like.dtype)
