"""Random numbers that belong to a sample, not to a batch.

Every random draw in diffcern comes from a generator keyed by (seed, sample id, purpose), so that a result depends
on the image and the seed alone: not on batch size, order, shard, worker count or resume. The generators live on the
CPU, whatever the device of the model, so that a CPU and a GPU run see the same draws.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def generator(seed: int, *key: str | int) -> torch.Generator:
    """A CPU generator that is a function of `seed` and `key` (for example a sample id and a purpose).

    Keys are joined unambiguously: ("a", "bc") and ("ab", "c") give different streams.
    """
    text = "\x1f".join([str(seed), *map(str, key)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@contextlib.contextmanager
def drawing_from(rng: torch.Generator) -> Iterator[None]:
    """What draws from torch's global CPU generator, as torchvision does, draws as `rng` would; the global generator is
    afterwards as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(rng.get_state())
        yield


def noise_like(latents: Tensor, rngs: Sequence[torch.Generator]) -> Tensor:
    """Gaussian noise of the latents' shape, each sample's from its own generator."""
    return torch.stack([torch.randn(latents.shape[1:], generator=rng) for rng in rngs]).to(latents.device)
