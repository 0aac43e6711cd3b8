"""DiT (Peebles & Xie 2023, arXiv 2212.09748) in diffusers' format, as facebook/DiT-XL-2-256: class-conditional, latent.

With a flow-matching scheduler the same network is a SiT (Ma et al. 2024, arXiv 2401.08740); its latents may be those
of a representation autoencoder (`priors/rae.py`).

The network is told the time by sines and cosines of t f_i, i < half. Published DiTs were trained with
f_i = exp(-ln(10000) i / half), and diffusers' network divides by half - 1: with random weights its answer is 4 % off at
t = 250, and 10 % at t = 999. Priors of facebook/DiT-* get the published frequencies, others diffusers', with which
`diffcern train prior` trains; "NAME+frequencies:published" or "NAME+frequencies:diffusers" says otherwise.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from diffcern.errors import DiffcernError, unknown
from diffcern.labels import label_space
from diffcern.priors.base import Prior
from diffcern.priors.rae import autoencoder_of
from diffcern.priors.schedule import schedule_of
from diffcern.priors.sizes import side_of
from diffcern.priors.soft import class_weights, soften_labels
from diffcern.spellings import abridged
from diffcern.types import Condition

Frequencies = Literal["published", "diffusers"]
SHIFTS: dict[Frequencies, float] = {"published": 0.0, "diffusers": 1.0}  # half - shift is what i is divided by
FREQUENCIES = "frequencies"  # what they are called in names, and beside the keys of model_index.json
CONVERTED = re.compile(r"(^|/)(models--)?facebook(/|--)DiT-|DiT-XL-2-(256|512)[^/]*$", re.I)  # published checkpoints


class DiTPrior(Prior):
    """Conditions are `classes` `[B, K]` on the simplex, or with the weight of the null class last, `[B, K + 1]`.

    Of a network that learned its variance too, the variance channels are split off. diffusers keeps a copy of the
    embedders of time and class in every block; where the copies are one, as published, they are one here too, which
    saves memory (XL/2: 0.3 GB) and moves them by the sum of their gradients where the prior is adapted.
    """

    def __init__(
        self,
        transformer: Any,
        vae: Any,
        scheduler: Any,
        class_names: tuple[str, ...],
        frequencies: Frequencies = "diffusers",
    ) -> None:
        super().__init__()
        share_embedders(transformer)
        soften_labels(transformer)
        self.frequencies = frequencies
        for block in transformer.transformer_blocks:
            block.norm1.emb.time_proj.downscale_freq_shift = SHIFTS[frequencies]
        self.denoiser = transformer
        size, channels = side_of(transformer), transformer.config.in_channels
        self.autoencoder = autoencoder_of(vae, channels, size)
        self.latent_shape = (channels, size, size)
        self.class_names = class_names
        self.rows = transformer.transformer_blocks[0].norm1.emb.class_embedder.embedding_table.weight.shape[0]
        self.set_schedule(schedule_of(scheduler))
        self.eval().requires_grad_(False)

    @classmethod
    def from_pipeline(cls, pipeline: Any, config: dict[str, Any]) -> DiTPrior:
        """From diffusers' DiTPipeline and its model_index.json, which names the classes."""
        names = named_classes(config.get("id2label"), pipeline.transformer.config.num_embeds_ada_norm)
        ordered = label_space(names).names
        frequencies = config.get(FREQUENCIES, "diffusers")  # no key of diffusers: see `told_frequencies`
        return cls(pipeline.transformer, pipeline.vae, pipeline.scheduler, ordered, frequencies)

    def encode(self, images: Tensor) -> Tensor:
        return self.autoencoder.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents)

    def denoise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        weights = class_weights(condition, len(self.class_names), self.rows, x_t)
        x_t = x_t.to(self.dtype)
        output = self.denoiser(x_t, timestep=self.times[timesteps], class_labels=weights.to(x_t.dtype)).sample
        return output[:, : self.latent_shape[0]]


def told_frequencies(name: str) -> tuple[str, Frequencies | None]:
    """The name of a repository or folder without what it says of its time embedding, and that, or None.

    Raises UsageError for frequencies that do not exist.
    """
    base, suffix, wanted = name.partition(f"+{FREQUENCIES}:")
    if suffix and wanted not in SHIFTS:
        raise unknown("frequencies", wanted, SHIFTS)
    return base, cast("Frequencies", wanted) if wanted else None


def usual_frequencies(name: str) -> Frequencies:
    """Those of a DiT of that name which says nothing of them; a folder's own name counts, however it is spelled."""
    base = name.partition("@")[0]
    place = Path(base).expanduser()
    spelled = place.resolve().as_posix() if place.is_dir() else base
    return "published" if CONVERTED.search(spelled) else "diffusers"


def named_classes(names: Any, count: int) -> list[str]:
    """What `id2label` of a model_index.json calls the `count` classes; their numbers where there is none.

    Raises DiffcernError unless it names each of them by its number, from 0 on.
    """
    if not names:
        return [str(k) for k in range(count)]
    numbers = {str(k) for k in range(count)}
    if not isinstance(names, dict) or set(names) != numbers or not all(isinstance(n, str) for n in names.values()):
        found = (
            f"{len(names)} keys, {abridged(list(names))}" if isinstance(names, dict) else f"a {type(names).__name__}"
        )
        raise DiffcernError(
            f'id2label in model_index.json names the {count} classes that the transformer has embeddings of, "0" to '
            f'"{count - 1}"; here it is {found}. The files belong to different models, or one was changed'
        )
    return [names[str(k)] for k in range(count)]


def share_embedders(transformer: Any) -> None:
    """Makes the blocks' embedders of time and class one module, in place, where they hold the same numbers."""
    first, *others = transformer.transformer_blocks
    state = first.norm1.emb.state_dict()
    if all(torch.equal(value, state[name]) for block in others for name, value in block.norm1.emb.state_dict().items()):
        for block in others:
            block.norm1.emb = first.norm1.emb
