"""The values that flow through the library: what goes into a prior, what comes out, and what a method answers.

A tensor is annotated with its dtype and its dimensions: `Float[Tensor, "batch channels height width"]`. While tests run
every call is checked against them (jaxtyping); elsewhere they cost nothing. The same names everywhere:

    batch                   images, or rows of a condition (K hypotheses, say)
    draws                   pairs of time and noise for each image, M
    timesteps               of a schedule, T
    hypotheses, candidates  conditions that are compared; those of them (or of the classes) that an image is asked about
    phrasings, captions     of the hypotheses; of images
    classes, prior_classes  of a predictor, or whoever is meant; of a prior where they may be others
    channels height width   of a latent, and of a map or an answer with a value at every pixel
    rows columns            of an image or a truth in pixels of its own
    tokens features         of a prompt; pooled: of the prompt as a whole
    answer                  whatever stands for one image: classes, classes height width or height width

`*name` and `...` stand for any number of dimensions, `#name` for that size or 1, `_` for any size. A name alone begins
with a space, so that linters do not take it for a variable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from diffcern.resizing import Images

Latents = Float[Tensor, "batch channels height width"]


@dataclass(frozen=True)
class Condition:
    """What a prior is told about an image; all fields None means unconditional.

    classes: on the simplex (a class is a point on it; a one-hot row is an ordinary label).
    tokens: prompt embeddings; pooled: of the whole prompt, where a prior uses one; mask: how present each token is, 0
    to 1, where prompts of different lengths are told apart (see `priors/masks.py`).
    spatial: maps: concatenated to the noisy latent, or read by a ControlNet.
    Derivatives by a condition for each draw have one more dimension.
    """

    classes: Float[Tensor, "batch *draws classes"] | None = None
    tokens: Float[Tensor, "batch *draws tokens features"] | None = None
    pooled: Float[Tensor, "batch *draws pooled"] | None = None
    spatial: Float[Tensor, "batch *draws channels height width"] | None = None
    mask: Float[Tensor, "batch *draws tokens"] | None = None

    @property
    def parts(self) -> dict[str, Tensor]:
        """The fields that are present, by name."""
        names = ("classes", "tokens", "pooled", "spatial", "mask")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def __len__(self) -> int:
        """Batch size; 0 when unconditional."""
        return next((len(value) for value in self.parts.values()), 0)

    def map(self, function: Callable[[Tensor], Tensor]) -> Condition:
        """The condition with `function` applied to every field that is present."""
        return Condition(**{name: function(value) for name, value in self.parts.items()})

    def __getitem__(self, index: Any) -> Condition:
        """Rows of the batch, by slice or index tensor."""
        return self.map(lambda value: value[index])

    def detach(self) -> Condition:
        return self.map(Tensor.detach)


@dataclass(frozen=True)
class Denoised:
    """A denoiser's raw output with what is needed to read it as eps or x0.

    output: the network's estimate of `kind`; x_t: the noisy latent it saw.
    alpha, sigma: with x_t = alpha * x0 + sigma * eps.
    """

    output: Latents
    kind: str
    x_t: Latents
    alpha: Float32[Tensor, "#batch #channels #height #width"]
    sigma: Float32[Tensor, "#batch #channels #height #width"]

    @property
    def eps(self) -> Latents:
        """Estimated noise, from the raw output where that already is the noise."""
        a, s, out = self.alpha, self.sigma, self.output.float()
        if self.kind == "eps":
            return out
        if self.kind == "x0":
            return (self.x_t - a * out) / s
        if self.kind == "v":  # v = a eps - s x0, a^2 + s^2 = 1
            return s * self.x_t + a * out
        return (self.x_t + a * out) / (a + s)  # flow: u = eps - x0

    def target(self, latents: Latents, noise: Latents) -> Latents:
        """What the raw output should have been, for clean latents and noise."""
        if self.kind == "eps":
            return noise
        if self.kind == "x0":
            return latents
        if self.kind == "v":
            return self.alpha * noise - self.sigma * latents
        return noise - latents

    @property
    def x0(self) -> Latents:
        """Estimated clean latent."""
        a, s, out = self.alpha, self.sigma, self.output.float()
        if self.kind == "eps":
            return (self.x_t - s * out) / a
        if self.kind == "x0":
            return out
        if self.kind == "v":
            return a * self.x_t - s * out
        return (self.x_t - s * out) / (a + s)


@dataclass(frozen=True)
class Inputs:
    """A batch as a method sees it: images and ids, never a target.

    images: float32 in [0, 1], a batch of one size or a sequence of different sizes; ids: one string per image, the key
    of its random numbers.
    """

    images: Images
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: slice) -> Inputs:
        return Inputs(self.images[index], self.ids[index])

    def at(self, rows: Sequence[int]) -> Inputs:
        """The images of these rows."""
        images = self.images[list(rows)] if isinstance(self.images, Tensor) else [self.images[row] for row in rows]
        return Inputs(images, [self.ids[row] for row in rows])


@dataclass(frozen=True)
class Cost:
    """What an answer cost, per image: denoiser evaluations, forward and of those how many were differentiated."""

    nfe_forward: int = 0
    nfe_backward: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.nfe_forward + other.nfe_forward, self.nfe_backward + other.nfe_backward)


@dataclass(frozen=True)
class Prediction:
    """What a method answers for a batch.

    output: logits `[B, K]` (or scores whose softmax is the method's probability), of pixels `[B, K, H, W]`, or depth
    `[B, H, W]`.
    costs: one per image. trace: per image, the loss at each step. notes: per image, named numbers worth keeping
    (for example the margin's z value).
    """

    output: Float[Tensor, "batch ..."]
    costs: Sequence[Cost] = ()
    trace: Sequence[Sequence[float]] = ()
    notes: Sequence[dict[str, float]] = ()

    @property
    def probabilities(self) -> Float32[Tensor, "batch classes ..."]:
        """Softmax of the output over the classes in fp32; of depth there is none."""
        return torch.softmax(self.output.float(), dim=1)


def concatenate(predictions: Sequence[Prediction]) -> Prediction:
    """One prediction for the concatenated batches."""
    return Prediction(
        output=torch.cat([p.output for p in predictions]),
        costs=[cost for p in predictions for cost in p.costs],
        trace=[trace for p in predictions for trace in p.trace],
        notes=[note for p in predictions for note in p.notes],
    )


@dataclass(frozen=True)
class Record:
    """One row of a run: what one method entry answered for one sample of one shift.

    entry names the configured method (a table row), method its registered name. severity is 0 for shift "clean",
    target -1 where none is known. statistics: of a task with an answer at every pixel, which has no target, prediction
    and probabilities (see `metrics`); empty where no truth is known. Time and memory are kept apart (`Timing`): a
    record is a function of the specification alone, so that a resumed run ends with identical records.
    """

    entry: str
    method: str
    dataset: str
    shift: str
    severity: int
    id: str
    index: int
    target: int
    prediction: int
    probabilities: list[float]
    nfe_forward: int
    nfe_backward: int
    loss_trace: list[float] = field(default_factory=list)
    notes: dict[str, float] = field(default_factory=dict)
    statistics: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds and peak memory (MiB) spent on one sample; measured, so never the same twice."""

    entry: str
    shift: str
    severity: int
    id: str
    seconds: float
    peak_memory_mb: float
