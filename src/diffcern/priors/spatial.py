"""Maps as conditions: concatenated to the noisy latent's channels, or read by a ControlNet beside the U-Net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from diffcern.types import Condition


@dataclass(frozen=True)
class Maps:
    """What a prior's maps show, channel by channel.

    kind: "segmentation", the share of each class of `names` in a pixel, in [0, 1]; or "depth", one channel: the
    logarithm of the depth, -1 at `near` and 1 at `far` (metres), or where these are None the inverse depth from its
    smallest to its largest in the image, -1 to 1 (MiDaS's convention, in which scale and shift play no part).
    """

    kind: Literal["segmentation", "depth"]
    names: tuple[str, ...] = ()
    near: float | None = None
    far: float | None = None

    @property
    def channels(self) -> int:
        return len(self.names) if self.kind == "segmentation" else 1


def with_maps(x: Tensor, condition: Condition, channels: int) -> Tensor:
    """x `[B, C, h, w]` with the condition's maps as `channels` more channels; zeros where it has none."""
    if not channels:
        return x
    maps = condition.spatial
    if maps is None:
        maps = x.new_zeros(len(x), channels, *x.shape[2:])
    return torch.cat([x, maps.to(x.dtype)], 1)


class ControlledUNet(nn.Module):
    """A U-Net with a ControlNet (Zhang et al. 2023, arXiv 2302.05543), called like the U-Net alone.

    spatial: `[B, 3, H, W]` in [0, 1], at the size of the images; None leaves the ControlNet out.
    """

    def __init__(self, unet: UNet2DConditionModel, controlnet: ControlNetModel) -> None:
        super().__init__()
        self.unet, self.controlnet = unet, controlnet
        self.config = unet.config

    def forward(
        self, x: Tensor, times: Tensor, encoder_hidden_states: Tensor, spatial: Tensor | None = None, **added: Any
    ) -> Any:
        if spatial is None:
            return self.unet(x, times, encoder_hidden_states, **added)
        down, middle = self.controlnet(
            x, times, encoder_hidden_states, controlnet_cond=spatial.to(x.dtype), return_dict=False, **added
        )
        return self.unet(
            x,
            times,
            encoder_hidden_states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            **added,
        )
