"""Closed-set classification: logits become a point on the simplex of the prior's classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffcern.errors import DiffcernError
from diffcern.types import Condition

if TYPE_CHECKING:
    from torchmetrics import Metric


class Classification:
    """Maps the predictor's K classes onto the prior's, by name.

    The order of the predictor's classes is the order of every output; the prior may know them in another order and
    may know more. Raises DiffcernError naming both sides when a class of the predictor is unknown to the prior.
    """

    def __init__(self, class_names: Sequence[str], prior_class_names: Sequence[str]) -> None:
        names, known = list(class_names), list(prior_class_names)
        missing = [name for name in names if name not in known]
        if missing or len(set(names)) < len(names) or len(set(known)) < len(known):
            raise DiffcernError(
                f"{len(names)} labels ({_abridged(names)}) do not map by name onto the prior's {len(known)} classes "
                f"({_abridged(known)}): "
                + (f"the prior lacks {_abridged(missing)}" if missing else "a name stands twice")
                + ". Give models of one label space, or name the classes alike."
            )
        self.class_names = tuple(names)
        self.mapping = torch.zeros(len(names), len(known))
        self.mapping[range(len(names)), [known.index(name) for name in names]] = 1

    def probabilities(self, output: Tensor, keep: Tensor | None = None) -> Tensor:
        """softmax of logits `[B, K]` in fp32; with keep `[B, k]` (indices) only over those, the rest exactly 0."""
        if keep is None:
            return torch.softmax(output.float(), -1)
        return torch.zeros_like(output.float()).scatter(-1, keep, torch.softmax(output.float().gather(-1, keep), -1))

    def condition(self, output: Tensor, keep: Tensor | None = None) -> Condition:
        """c = sum_k p_k e_k, differentiable in the logits `[B, K]` (Diffusion-TTA, arXiv 2311.16102, eq. 4)."""
        return Condition(classes=self.probabilities(output, keep) @ self.mapping.to(output.device))

    def hypotheses(self, device: torch.device) -> Condition:
        """One row per class of the predictor, `[K, K_prior]`."""
        return Condition(classes=self.mapping.to(device))

    def metrics(self) -> dict[str, Metric]:
        """What answers of this task are measured by."""
        from torchmetrics.classification import MulticlassAccuracy  # slow to import, and only needed here

        return {"accuracy": MulticlassAccuracy(len(self.class_names), average="micro")}


def _abridged(names: Sequence[str], limit: int = 6) -> str:
    shown = ", ".join(names[:limit])
    return shown + (", ..." if len(names) > limit else "")
