"""DiT (Peebles & Xie 2023, arXiv 2212.09748) in diffusers' format, as facebook/DiT-XL-2-256: class-conditional, latent.

With a flow-matching scheduler the same network is a SiT (Ma et al. 2024, arXiv 2401.08740).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffcern.labels import label_space
from diffcern.priors.base import Prior
from diffcern.priors.latent import Autoencoder
from diffcern.priors.schedule import schedule_of
from diffcern.priors.soft import class_weights, soften_labels
from diffcern.types import Condition


class DiTPrior(Prior):
    """Conditions are `classes` `[B, K]` on the simplex, or with the weight of the null class last, `[B, K + 1]`.

    Of a network that learned its variance too, the variance channels are split off.
    """

    def __init__(self, transformer: Any, vae: Any, scheduler: Any, class_names: tuple[str, ...]) -> None:
        super().__init__()
        soften_labels(transformer)
        self.denoiser = transformer
        size, channels = transformer.config.sample_size, transformer.config.in_channels
        self.autoencoder = Autoencoder(vae, size)
        self.latent_shape = (channels, size, size)
        self.class_names = class_names
        self.rows = transformer.transformer_blocks[0].norm1.emb.class_embedder.embedding_table.weight.shape[0]
        self.set_schedule(schedule_of(scheduler))
        self.eval().requires_grad_(False)

    @classmethod
    def from_pipeline(cls, pipeline: Any, config: dict[str, Any]) -> DiTPrior:
        """From diffusers' DiTPipeline and its model_index.json, which names the classes."""
        count = pipeline.transformer.config.num_embeds_ada_norm
        names = config.get("id2label") or {str(k): str(k) for k in range(count)}
        ordered = label_space([names[key] for key in sorted(names, key=int)]).names
        return cls(pipeline.transformer, pipeline.vae, pipeline.scheduler, ordered)

    def encode(self, images: Tensor) -> Tensor:
        return self.autoencoder.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents)

    def denoise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        weights = class_weights(condition, len(self.class_names), self.rows, x_t)
        x_t = x_t.to(self.dtype)
        output = self.denoiser(x_t, timestep=self.times[timesteps], class_labels=weights.to(x_t.dtype)).sample
        return output[:, : self.latent_shape[0]]
