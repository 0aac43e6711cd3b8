"""How large the images are that a network of diffusers was trained on: its sample_size, a number, a list or null.

Latents are square here, as the published models' are; a network that was trained on others is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffcern.errors import DiffcernError
from diffcern.files import reading

KEY = "sample_size"
ASK = f"write the side of its latents (its images, without an autoencoder) as {KEY} into its config.json"


def size_options(folder: Path, architecture: Any) -> dict[str, int]:
    """Options for `from_pretrained` that put a number where config.json has a list, which some networks of diffusers
    cannot read.

    Raises DiffcernError where a transformer, which has a position for every patch, has no number.
    """
    config = folder / "config.json"
    with reading(config, "It may be damaged"):
        known = json.loads(config.read_text())
    if KEY not in known:  # the library's own default
        return {}
    size, side = known[KEY], _side(known[KEY])
    if side is None and architecture.__name__.endswith("Transformer2DModel"):
        raise _refusal(size, f"network ({config})")
    return {KEY: side} if side is not None and isinstance(size, list) else {}


def side_of(denoiser: Any, autoencoder: Any = None) -> int:
    """The side of the latents that a network was trained on.

    autoencoder: what makes latents of images; where the network takes any size (sample_size null) and the
    autoencoder's own config.json names the side of its images, theirs. Raises DiffcernError for a size that is not
    square, and where nobody names any.
    """
    size = denoiser.config.get(KEY)
    side = _side(size)
    if size is None and autoencoder is not None:
        config = autoencoder.config
        factor = downsampling(config)
        pixels = None if KEY in config.get("_use_default_values", ()) else _side(config.get(KEY))
        side = None if pixels is None else pixels // factor or None
    if side is None:
        raise _refusal(size, type(denoiser).__name__)
    return side


def downsampling(config: Any) -> int:
    """How many pixels of an image stand side by side in one place of an autoencoder's latents."""
    blocks = config.get("block_out_channels") or config.encoder_block_out_channels
    factor: int = 2 ** (len(blocks) - 1)
    return factor


def _side(size: Any) -> int | None:
    """The number, or that of a list of equal ones."""
    numbers = {*size} if isinstance(size, list | tuple) else {size}
    number = numbers.pop() if len(numbers) == 1 else None
    return number if isinstance(number, int) and not isinstance(number, bool) and number > 0 else None


def _refusal(size: Any, what: str) -> DiffcernError:
    says = f"the prior's {what} says {KEY}: {json.dumps(size)}"
    if size is None:
        return DiffcernError(f"{says}, and nothing else says what it was trained on: {ASK}")
    return DiffcernError(f"{says}, and priors here see squares: {ASK}, where it may be one")
