"""Energies of GDA (Tsai et al. 2024, arXiv 2404.00095) that look at images through a network; none sees a label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffcern.errors import UsageError
from diffcern.predictors import Predictor
from diffcern.predictors.clip import ZeroShot
from diffcern.priors.latent import pixel_images
from diffcern.rng import generator


class MarginalEntropy:
    """H(mean_v softmax f(view_v(x0_hat))): the classifier should agree with itself over augmented views.

    Views are crops of 0.6 to 1 of the side, half of them mirrored; the same for all images, so that none depends on
    its company.
    """

    needs_pixels = True

    def __init__(self, predictor: Predictor, views: int = 8, seed: int = 0) -> None:
        self.predictor = predictor
        rng = generator(seed, "views")
        scale = 0.6 + 0.4 * torch.rand(views, generator=rng)
        centre = (1 - scale)[:, None] * (2 * torch.rand(views, 2, generator=rng) - 1)
        mirror = torch.where(torch.rand(views, generator=rng) < 0.5, -1.0, 1.0)
        self.affine = torch.zeros(views, 2, 3)  # from the view's coordinates to the image's
        self.affine[:, 0, 0], self.affine[:, 1, 1], self.affine[:, :, 2] = mirror * scale, scale, centre

    def __call__(self, x0: Tensor, reference: Tensor) -> Tensor:
        images = pixel_images(x0)
        total = torch.zeros((), device=x0.device)
        for affine in self.affine.to(x0.device):
            grid = F.affine_grid(affine.expand(len(images), 2, 3), list(images.shape), align_corners=False)
            view = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
            total = total + torch.softmax(self.predictor(self.predictor.of_view(view)).float(), -1)
        mean = total / len(self.affine)
        return -(mean * mean.clamp(min=1e-12).log()).sum(-1)


class PatchContrast:
    """InfoNCE between features of the same place (Park et al. 2020, arXiv 2007.15651): the content stays where it is.

    layer: the name of a module of the predictor whose output is a map `[B, C, h, w]`. Raises UsageError, listing the
    modules, for another name.
    """

    needs_pixels = True

    def __init__(self, predictor: Predictor, layer: str, temperature: float = 0.07) -> None:
        modules = dict(predictor.named_modules())
        if not layer or layer not in modules:
            raise UsageError(f"content_layer names a module of the predictor: {', '.join(filter(None, modules))[:500]}")
        self.predictor, self.layer, self.temperature = predictor, modules[layer], temperature

    def features(self, images: Tensor) -> Tensor:
        """Of length 1 at each place, `[B, h w, C]`."""
        found: list[Any] = []
        handle = self.layer.register_forward_hook(lambda module, inputs, output: found.append(output))
        try:
            self.predictor(self.predictor.of_view(images))
        finally:
            handle.remove()
        if not found or not isinstance(found[0], Tensor) or found[0].ndim != 4:
            raise UsageError("content_layer is a module whose output is a map [B, C, h, w]: name another one")
        return F.normalize(found[0].float().flatten(2).transpose(1, 2), dim=-1)

    def __call__(self, x0: Tensor, reference: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.features(pixel_images(reference))
        similar = self.features(pixel_images(x0)) @ wanted.transpose(1, 2) / self.temperature  # [B, hw, hw]
        return -similar.log_softmax(-1).diagonal(dim1=1, dim2=2).mean(-1)


class StyleDirection:
    """1 - cos(E(x0_hat) - E(x), T(target) - T(source)) in CLIP's space (Gal et al. 2021, arXiv 2108.00946).

    clip: a predictor loaded from CLIP with two labels, the source and the target. Raises UsageError for another.
    """

    needs_pixels = True

    def __init__(self, clip: Predictor) -> None:
        if not isinstance(clip.model, ZeroShot) or len(clip.class_names) != 2:
            raise UsageError(
                "the style's direction is between two texts of a CLIP or SigLIP model: give one as "
                "predictor, or style=0"
            )
        source, target = clip.model.text
        self.clip, self.model, self.direction = clip, clip.model, target - source

    def encode(self, latents: Tensor) -> Tensor:
        """Features of length 1, `[B, D]`."""
        return self.model.features(self.clip.prepare(pixel_images(latents)))

    def __call__(self, x0: Tensor, reference: Tensor) -> Tensor:
        with torch.no_grad():
            given = self.encode(reference)
        return 1 - F.cosine_similarity(self.encode(x0) - given, self.direction[None], dim=-1, eps=1e-6)
