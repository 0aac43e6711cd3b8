"""ADM's U-Net, written from the paper (Dhariwal & Nichol 2021, Section 3 and Appendix A) with the checkpoints' names.

Independent of diffusers and of the importer, plain rather than fast: attention goes head by head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Config:
    """In the terms of guided-diffusion's flags; `attention` holds levels (0 is the finest), not resolutions."""

    width: int = 8
    multipliers: tuple[float, ...] = (1, 2)
    depth: int = 1
    attention: tuple[int, ...] = (1,)
    heads: int | None = None
    head_channels: int = 4
    new_order: bool = False
    updown: bool = False
    scale_shift: bool = False
    learn_sigma: bool = False
    classes: int | None = None
    channels: int = 3
    groups: int = 4


class ResBlock(nn.Module):
    def __init__(self, c: Config, inputs: int, outputs: int, resample: str | None = None) -> None:
        super().__init__()
        self.scale_shift, self.resample = c.scale_shift, resample
        self.in_layers = nn.Sequential(norm(c, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * c.width, (1 + c.scale_shift) * outputs))
        conv = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.out_layers = nn.Sequential(norm(c, outputs), nn.SiLU(), nn.Dropout(0.1), conv)
        self.skip_connection = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        normalise, activate, conv = self.in_layers
        h = activate(normalise(x))
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample == "up":
            h, x = (v.repeat_interleave(2, 2).repeat_interleave(2, 3) for v in (h, x))
        h = conv(h)
        e = self.emb_layers(emb)[:, :, None, None]
        normalise, *rest = self.out_layers
        if self.scale_shift:
            half = e.shape[1] // 2
            h = normalise(h) * (1 + e[:, :half]) + e[:, half:]
        else:
            h = normalise(h + e)
        for layer in rest:
            h = layer(h)
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    def __init__(self, c: Config, channels: int) -> None:
        super().__init__()
        self.heads, self.new_order = c.heads or channels // c.head_channels, c.new_order
        self.norm = norm(c, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        width = x.shape[1] // self.heads
        rows = self.qkv(self.norm(x).flatten(2))  # [b, 3C, n]
        outputs = []
        for head in range(self.heads):
            # where this head's q starts, and how far it is from there to its k and from its k to its v
            start, step = (head * width, x.shape[1]) if self.new_order else (3 * head * width, width)
            q, k, v = (rows[:, start + i * step :][:, :width] for i in range(3))
            weights = torch.softmax(torch.einsum("bcq,bck->bqk", q, k) / math.sqrt(width), -1)
            outputs.append(torch.einsum("bqk,bck->bcq", weights, v))
        return x + self.proj_out(torch.cat(outputs, 1)).view_as(x)


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class Stem(nn.Conv2d):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return super().forward(x)


class ADM(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.width = c.width
        widths = [int(c.width * multiplier) for multiplier in c.multipliers]
        self.time_embed = nn.Sequential(nn.Linear(c.width, 4 * c.width), nn.SiLU(), nn.Linear(4 * c.width, 4 * c.width))
        if c.classes:
            self.label_emb = nn.Embedding(c.classes, 4 * c.width)
        now = widths[0]
        inputs, skips = [[Stem(c.channels, now, 3, padding=1)]], [now]
        for level, width in enumerate(widths):
            for _ in range(c.depth):
                inputs.append([ResBlock(c, now, width), *([AttentionBlock(c, width)] if level in c.attention else [])])
                now = width
                skips.append(now)
            if level < len(widths) - 1:
                inputs.append([ResBlock(c, now, now, "down") if c.updown else Downsample(now)])
                skips.append(now)
        middle = [ResBlock(c, now, now), AttentionBlock(c, now), ResBlock(c, now, now)]
        outputs = []
        for level in reversed(range(len(widths))):
            for i in range(c.depth + 1):
                block = [ResBlock(c, now + skips.pop(), widths[level])]
                now = widths[level]
                if level in c.attention:
                    block.append(AttentionBlock(c, now))
                if level > 0 and i == c.depth:
                    block.append(ResBlock(c, now, now, "up") if c.updown else Upsample(now))
                outputs.append(block)
        self.input_blocks = nn.ModuleList(nn.ModuleList(block) for block in inputs)
        self.middle_block = nn.ModuleList(middle)
        self.output_blocks = nn.ModuleList(nn.ModuleList(block) for block in outputs)
        conv = nn.Conv2d(now, c.channels * (1 + c.learn_sigma), 3, padding=1)
        self.out = nn.Sequential(norm(c, now), nn.SiLU(), conv)

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor | None = None) -> Tensor:
        half = self.width // 2
        angles = timesteps[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        emb = self.time_embed(torch.cat([angles.cos(), angles.sin()], 1))
        if labels is not None:
            emb = emb + self.label_emb(labels)
        skips = []
        for block in self.input_blocks:
            for layer in block:
                x = layer(x, emb)
            skips.append(x)
        for layer in self.middle_block:
            x = layer(x, emb)
        for block in self.output_blocks:
            x = torch.cat([x, skips.pop()], 1)
            for layer in block:
                x = layer(x, emb)
        return self.out(x)


def norm(c: Config, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(c.groups, channels, eps=1e-5)
