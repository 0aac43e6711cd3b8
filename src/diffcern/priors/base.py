"""What every diffusion prior offers. Knows nothing about predictors, tasks or methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float, Float32, Int, Shaped
from torch import Tensor, nn

from diffcern.errors import UsageError
from diffcern.priors.schedule import Schedule
from diffcern.priors.spatial import Maps
from diffcern.resizing import Images
from diffcern.types import Condition, Denoised, Latents
from diffcern.watching import evaluated


def check_rows(condition: Condition, count: int) -> None:
    """Raises UsageError unless a condition has a row for each of `count` latents: one alone would be told to all."""
    if condition.parts and len(condition) != count:
        raise UsageError(f"one condition row for each latent: {count} latents, {len(condition)} rows")


class Prior(nn.Module, ABC):
    """A frozen diffusion model: image <-> latent, a noise schedule, and a conditional denoiser.

    Subclasses set the attributes below and implement `encode`, `decode` and `denoise`; `forward` is the only path
    into the network and is not overridden.

    denoiser: the network, the part that may run in half precision. kind: what its raw output estimates ("eps", "x0",
    "v", "flow"). class_names: the label space, empty if none. latent_shape: (C, h, w). pixels: whether latents are
    pixels in [-1, 1]. alphas, sigmas: fp32 tables, computed in fp64, with x_t = alphas[t] * x0 + sigmas[t] * eps.
    times: what the network is told at each t. spatial_shape: (C, h, w) of the maps that it takes as a condition,
    None if it takes none; maps: what these show, None where that is not known. colours: where they are drawn as one
    picture of three channels in [0, 1] (a ControlNet's), the colour of each class, or of the nearest depth, where the
    farthest is black; else empty. clean_errors: percentiles 0 to 100 of the denoising error over clean images, where
    known (see `diffcern.familiarity`); clean_gains: of what families of views gain on them (`diffcern.clean_gains`).
    """

    denoiser: nn.Module
    kind: str
    class_names: tuple[str, ...]
    latent_shape: tuple[int, int, int]
    alphas: Float32[Tensor, " timesteps"]
    sigmas: Float32[Tensor, " timesteps"]
    times: Shaped[Tensor, " timesteps"]
    pixels: bool = False
    spatial_shape: tuple[int, int, int] | None = None
    maps: Maps | None = None
    colours: tuple[tuple[float, ...], ...] = ()
    clean_errors: Float[Tensor, " 101"] | None = None
    clean_gains: Mapping[str, Float[Tensor, " 101"]] = MappingProxyType({})

    def set_schedule(self, schedule: Schedule) -> None:
        """Takes on a schedule and its kind; kept in fp32 whatever the network's dtype."""
        self.kind = schedule.kind
        self.register_buffer("alphas", schedule.alphas.float(), persistent=False)
        self.register_buffer("sigmas", schedule.sigmas.float(), persistent=False)
        self.register_buffer("times", schedule.times, persistent=False)

    @property
    def num_timesteps(self) -> int:
        return len(self.alphas)

    @property
    def device(self) -> torch.device:
        return self.alphas.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the denoiser."""
        return next(self.denoiser.parameters()).dtype

    @abstractmethod
    def encode(self, images: Float[Tensor, "batch 3 rows columns"]) -> Latents:
        """Images in [0, 1] of any size -> latents of `latent_shape`, deterministic."""

    def latents(self, images: Images) -> Latents:
        """Of a batch, or of images of any sizes, each by itself, on the prior's device. What an image shows is brought
        to the prior's shape as a whole: crop it before (see `Predictor.view`)."""
        if isinstance(images, Tensor):
            return self.encode(images.to(self.device))
        return torch.cat([self.encode(image[None].to(self.device)) for image in images])

    @abstractmethod
    def decode(self, latents: Latents) -> Float[Tensor, "batch 3 rows columns"]:
        """Latents -> images in [0, 1] at the prior's own resolution."""

    @abstractmethod
    def denoise(self, x_t: Latents, timesteps: Int[Tensor, " batch"], condition: Condition) -> Latents:
        """The network: noisy latents -> raw output."""

    def alpha_sigma(
        self, timesteps: Int[Tensor, " batch"]
    ) -> tuple[Float32[Tensor, "batch 1 1 1"], Float32[Tensor, "batch 1 1 1"]]:
        """Schedule coefficients."""
        shape = (-1, *[1] * len(self.latent_shape))
        return self.alphas[timesteps].view(shape), self.sigmas[timesteps].view(shape)

    def add_noise(self, latents: Latents, timesteps: Int[Tensor, " batch"], noise: Latents) -> Latents:
        """x_t = alpha x0 + sigma eps, in fp32."""
        alpha, sigma = self.alpha_sigma(timesteps)
        return alpha * latents.float() + sigma * noise.float()

    def forward(self, x_t: Latents, timesteps: Int[Tensor, " batch"], condition: Condition) -> Denoised:
        """One denoiser evaluation; unconditional where the condition is empty.

        Raises UsageError for maps that the prior cannot take, and for a condition of other images.
        """
        check_rows(condition, len(x_t))
        if condition.spatial is not None and tuple(condition.spatial.shape[1:]) != self.spatial_shape:
            takes = f"maps of shape {self.spatial_shape}" if self.spatial_shape else "no maps"
            raise UsageError(f"this prior takes {takes}, not {tuple(condition.spatial.shape[1:])}")
        alpha, sigma = self.alpha_sigma(timesteps)
        output = self.denoise(x_t, timesteps, condition)
        evaluated(len(x_t))
        return Denoised(output, self.kind, x_t, alpha, sigma)

    def hypotheses(self) -> Condition:
        """One condition row per class of the label space, `[K, K]`."""
        return Condition(classes=torch.eye(len(self.class_names), device=self.device))

    def phrasings(self, hypotheses: Condition) -> tuple[Condition, Int[Tensor, " phrasings"]]:
        """All ways to say each of the hypotheses, and which one each says: one each, but for text."""
        return hypotheses, torch.arange(len(hypotheses), device=self.device)

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        """Moves like any module, but .half() and .bfloat16() leave the schedule alone (they would round it)."""
        schedule = {name: getattr(self, name) for name in ("alphas", "sigmas", "times")}
        module = super()._apply(fn, recurse)
        for name, table in schedule.items():
            setattr(self, name, table.to(self.device))
        return module
