"""Tiny data and models with captions, written to disk."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hub_checkpoints import CLASSES, loud
from PIL import Image

from diffcern.priors.captioned import CaptionedConfig, CaptionedPrior, captioned_prior
from diffcern.words import word_tokenizer

CAPTIONS = ("a red square", "a blue square on a green field, which is large")
SIZES = {"width": 16, "depth": 2, "heads": 2, "patch": 4, "text_width": 16, "text_depth": 2, "text_heads": 2}


def tiny(captions: Sequence[str] = CAPTIONS, kind: str = "x0", channels: int = 3) -> CaptionedPrior:
    """Untrained, with random numbers everywhere."""
    torch.manual_seed(0)
    prior = captioned_prior(CaptionedConfig(kind, 8, channels), word_tokenizer(captions), **SIZES)
    loud(prior.denoiser)
    loud(prior.encoder.network)
    prior.requires_grad_(False)
    prior.embed_null()
    return prior


def captioned(folder: Path) -> Path:
    """A folder as of `diffcern train text-prior` that knows the classes of the hub's checkpoints."""
    tiny([f"a photo of a {label}." for label in CLASSES]).save_pretrained(folder, torch.float32)
    return folder


def caption_table(path: Path, colours: Sequence[tuple[int, int, int]], captions: Sequence[str], **columns) -> Path:
    """A Parquet file with an image of one colour, 8 x 8, per caption."""
    images = []
    for colour in colours:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(buffer, format="PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    pq.write_table(pa.table({"image": images, "caption": list(captions), **columns}), path)
    return path
