"""Closed-set classification: logits become a point on the simplex of the prior's classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor
from torch.nn import functional as F

from diffcern.data.base import Sample
from diffcern.errors import DiffcernError
from diffcern.kinds import CLASSIFICATION
from diffcern.predictors.base import Predictor
from diffcern.priors.base import Prior
from diffcern.tasks.base import Keep, OfClasses, name_map
from diffcern.types import Condition


class Classification(OfClasses):
    """Maps the predictor's K classes onto the prior's, by name.

    The order of the predictor's classes is the order of every output; the prior may know them in another order and
    may know more. Raises DiffcernError naming both sides when a class of the predictor is unknown to the prior.
    """

    kind = CLASSIFICATION
    name = CLASSIFICATION.name

    def __init__(self, class_names: Sequence[str], prior_class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        self.mapping = name_map(class_names, prior_class_names)

    @classmethod
    def joining(cls, predictor: Predictor, prior: Prior | None) -> Classification:
        return cls(predictor.class_names, (prior.class_names if prior else ()) or predictor.class_names)

    def check(self, prior: Prior) -> None:
        if not prior.class_names and prior.maps:
            raise DiffcernError(
                f"this prior reads maps of {prior.maps.kind}, and knows no classes of images: adapt with it by --task "
                f"{prior.maps.kind}"
            )
        if not prior.class_names:
            raise DiffcernError("this prior is unconditional and cannot be asked about classes: purify with it instead")

    def probabilities(
        self, output: Float[Tensor, "batch classes"], keep: Keep | None = None
    ) -> Float32[Tensor, "batch classes"]:
        """softmax of logits in fp32; with keep (indices) only over those, the rest exactly 0."""
        if keep is None:
            return torch.softmax(output.float(), -1)
        return torch.zeros_like(output.float()).scatter(-1, keep, torch.softmax(output.float().gather(-1, keep), -1))

    def condition(self, output: Float[Tensor, "batch classes"], keep: Keep | None = None) -> Condition:
        """c = sum_k p_k e_k, differentiable in the logits (Diffusion-TTA, arXiv 2311.16102, eq. 4)."""
        return Condition(classes=self.probabilities(output, keep) @ self.mapping.to(output.device))

    def hypotheses(self, device: torch.device) -> Condition:
        """One row per class of the predictor, `[K, K_prior]`."""
        return Condition(classes=self.mapping.to(device))

    def check_sample(self, sample: Sample, like: Float[Tensor, "*answer"]) -> None:
        """Every class may be right."""

    def statistics(self, output: Float[Tensor, " classes"], sample: Sample) -> list[float]:
        """Right, labelled; from logits, where the sample's target is one of this task's classes."""
        return [float(int(output.argmax()) == sample.target), 1.0] if sample.target >= 0 else []

    @staticmethod
    def loss(
        output: Float[Tensor, "batch classes"], truth: Int[Tensor, " batch"], label_smoothing: float = 0.0
    ) -> Float[Tensor, ""]:
        """Cross entropy of logits with classes."""
        return F.cross_entropy(output, truth, label_smoothing=label_smoothing)
