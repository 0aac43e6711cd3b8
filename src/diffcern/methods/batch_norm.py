"""BN-adapt: BatchNorm statistics of the test batch, mixed with those of the training data (Schneider et al. 2020).

mean = N/(N+n) * mean_source + n/(N+n) * mean_batch        and alike for the variance

The batch's variance is the unbiased one where it is mixed (N > 0), as published, and the biased one where it stands
alone, as in training.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diffcern.copies import duplicate
from diffcern.errors import DiffcernError, UsageError
from diffcern.kinds import KINDS
from diffcern.methods.base import Method, call, frozen_copy
from diffcern.predictors import Predictor
from diffcern.types import Cost, Inputs, Prediction

Statistics = Literal["batch", "source"]  # of whom BatchNorm's are
HOOKS = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs")


class BatchStatisticsNorm(nn.Module):
    """A BatchNorm layer that normalises with mixed statistics; n is the batch size, N = source_count.

    Same parameter and buffer names as the layer it replaces; never updates a buffer. through: gradients flow through
    the batch statistics, as in training; else these are constants.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, layer: _BatchNorm, source_count: float, through: bool = True) -> None:
        super().__init__()
        if layer.running_mean is None or layer.running_var is None:
            raise DiffcernError(
                "BN-adapt needs BatchNorm layers with running statistics: give another predictor or method"
            )
        self.weight, self.bias = layer.weight, layer.bias
        self.register_buffer("running_mean", layer.running_mean)
        self.register_buffer("running_var", layer.running_var)
        self.eps = layer.eps
        # timm's BatchNormAct2d carries its dropout and activation inside the normalisation layer.
        self.after = nn.Sequential(*(getattr(layer, name) for name in ("drop", "act") if hasattr(layer, name)))
        self.source_count, self.through = source_count, through
        for name in HOOKS:  # what a network keeps of this layer's answer
            getattr(self, name).update(getattr(layer, name))

    def forward(self, x: Tensor) -> Tensor:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        keep = self.source_count / (self.source_count + len(x))
        seen = x if self.through else x.detach()
        unbiased = keep > 0 and x.numel() > x.shape[1]
        mean = keep * self.running_mean + (1 - keep) * seen.mean(axes)
        variance = keep * self.running_var + (1 - keep) * seen.var(axes, correction=int(unbiased))
        shape = [1, -1] + [1] * (x.ndim - 2)
        normal = (x - mean.view(shape)) * torch.rsqrt(variance.view(shape) + self.eps)
        return self.after(normal if self.weight is None else normal * self.weight.view(shape) + self.bias.view(shape))


def with_batch_statistics(model: nn.Module, source_count: float = 0.0, *, through: bool = True) -> nn.Module:
    """A copy of the model whose BatchNorm layers use the statistics of the batch (see the module's equation).

    source_count: N, how many images the training statistics count for; 0 takes the batch's alone. through: see
    `BatchStatisticsNorm`. Models without BatchNorm come back as plain copies. Raises UsageError for a negative count.
    """
    if source_count < 0:
        raise UsageError(f"source_count must be at least 0, not {source_count}")
    model = duplicate(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, BatchStatisticsNorm(child, source_count, through))
    return model


def with_statistics(model: nn.Module, statistics: Statistics) -> nn.Module:
    """The model as it normalises with the statistics of the batch, or as it came, with the source's: then it needs no
    batch, and it is the affine weights alone that adapt."""
    return with_batch_statistics(model) if statistics == "batch" else model


def check_batch_norm(model: nn.Module, method: str) -> None:
    """Raises DiffcernError for a model without BatchNorm layers: batch statistics would change nothing in it (vision
    transformers, ConvNeXt, a ResNet whose BatchNorm is frozen into constants)."""
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise DiffcernError(
            f"{method} replaces the statistics of BatchNorm layers, and this predictor has none: it would answer as "
            "source does; leave it out for this predictor"
        )


class BatchNormAdapt(Method):
    """Predicts with the statistics of the batch; changes no weight and carries no state.

    source_count: N. What is best depends on the predictor and on the size of a batch: choose it on validation images,
    as published. Raises DiffcernError for a predictor without BatchNorm.
    """

    needs_batch = True
    tasks = tuple(KINDS)

    def __init__(self, predictor: Predictor, source_count: float = 0.0) -> None:
        check_batch_norm(predictor, "bn-adapt")
        self.predictor = frozen_copy(with_batch_statistics(predictor, source_count))
        self.source_count = source_count

    def init(self) -> None:
        return None

    @torch.no_grad()
    def step(self, state: None, inputs: Inputs, seed: int) -> tuple[Prediction, None]:
        return Prediction(call(self.predictor, {}, inputs.images), [Cost()] * len(inputs)), None
