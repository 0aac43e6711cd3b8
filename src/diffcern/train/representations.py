"""Representation alignment (REPA: Yu et al. 2024, arXiv 2410.06940): what a frozen encoder sees in a clean image, an
early block of a prior's transformer should see in the noisy one.

    L = - mean over patches of cos( MLP(h_l(x_t)), encoder(x) )

Only training knows of it: the MLP is dropped afterwards.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffcern.errors import UsageError
from diffcern.predictors import Predictor
from diffcern.predictors.encoder import feature_map

HIDDEN = 4  # widths of the MLP's hidden layer, in the transformer's


class Representations(nn.Module):
    """Holds the MLP, the only part that is trained, and listens to a block of the transformer.

    block: counted from 1. Raises UsageError for a network without transformer blocks, a block that there is not, and an
    encoder without a map of features.
    """

    def __init__(self, transformer: Any, encoder: Predictor, block: int, side: int) -> None:
        super().__init__()
        blocks = getattr(transformer, "transformer_blocks", ())
        if not 1 <= block <= len(blocks):
            raise UsageError(
                f"the network has {len(blocks)} transformer blocks: block {block} is none of them, they count from 1"
            )
        self._encoder = [encoder.eval().requires_grad_(False)]  # in a list: no part of what is trained and saved
        self.grid = side // transformer.config.patch_size
        width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
        channels = self.features(torch.zeros(1, 3, side, side, device=encoder.mean.device)).shape[-1]
        self.project = nn.Sequential(nn.Linear(width, HIDDEN * width), nn.SiLU(), nn.Linear(HIDDEN * width, channels))
        self._hook = blocks[block - 1].register_forward_hook(lambda module, given, output: self._hear(output))

    def _hear(self, tokens: Tensor) -> None:
        self._heard = tokens  # of the last pass alone: a loss may ask for others, of other rows

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What the encoder sees in each patch of clean images `[B, 3, H, W]`: `[B, patches, channels]`."""
        return F.adaptive_avg_pool2d(feature_map(self._encoder[0], images), self.grid).flatten(2).mT

    def loss(self, images: Tensor) -> Tensor:
        """For the clean images of the rows that the transformer has just denoised."""
        return -F.cosine_similarity(self.project(self._heard.float()), self.features(images), dim=-1).mean()

    def leave(self) -> None:
        """Stops listening."""
        self._hook.remove()
