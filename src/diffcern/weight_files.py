"""A network's weights in a repository: in one file or shards, plain or of one precision, safetensors or pickles.

Knows nothing about architectures; predictors and priors say which library reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from diffcern import hub
from diffcern.errors import DiffcernError
from diffcern.texts import read_json

# What the libraries call a network's weights, as safetensors and as pickles.
STEMS = {
    "diffusers": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "transformers": ("model", "pytorch_model"),
}
# Published beside the plain ones, or in their place. Others ("non_ema", "ema_only") are other weights.
VARIANTS = ("fp32", "fp16", "bf16")
OTHERS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.safetensors")
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors")
SINGLE = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".gguf")


@dataclass(frozen=True)
class Stored:
    """How weights are stored. variant: as the libraries take it, None for the plain name; safe: as safetensors."""

    variant: str | None = None
    safe: bool = True

    def patterns(self, library: str, part: str = "") -> list[str]:
        """Of the files, in one or in shards; part: the network's folder in its repository."""
        stem = STEMS[library][0 if self.safe else 1] + (f".{self.variant}" if self.variant else "")
        suffix = "safetensors" if self.safe else "bin"
        return [str(PurePosixPath(part, f"{stem}{shard}.{suffix}")) for shard in ("", "-*")]

    @property
    def reading(self) -> dict[str, Any]:
        """For `from_pretrained`: these files, and a report of what does not fit in the place of the library's error, so
        that messages can name it."""
        report = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        return {"use_safetensors": self.safe, "variant": self.variant, **report}

    def files(self, folder: Path, library: str) -> list[Path]:
        """Those that are there, in a network's own folder; none where they are pickles, which nobody looks into."""
        patterns = self.patterns(library) if self.safe else []
        return [file for pattern in patterns for file in sorted(folder.glob(pattern))]


def fetch_weights(name: str, networks: Mapping[str, str], configuration: str, allow_pickle: bool) -> None:
    """Fetches weights of each network of a repository, as `stored_weights` looks for them, as far as there are any.

    name, configuration: as for `hub.download`. networks: the library that reads each, by its folder ("" at the root).
    """
    left = dict(networks)
    for stored in _kinds(allow_pickle):
        patterns = {part: stored.patterns(library, part) for part, library in left.items()}
        folder = hub.download(name, [file for files in patterns.values() for file in files], configuration)
        left = {part: library for part, library in left.items() if not hub.holds(folder, patterns[part])}
        if not left:
            return


def stored_weights(name: str, folder: Path, networks: Mapping[str, str], allow_pickle: bool) -> dict[str, Stored]:
    """How the weights of each network are stored in the folder: plain safetensors where there are any, then those of
    one precision, then pickles where they are allowed.

    name: what messages call the folder. Raises DiffcernError for a network that has none of these.
    """
    found = {}
    for part, library in networks.items():
        kinds = (stored for stored in _kinds(allow_pickle) if hub.holds(folder, stored.patterns(library, part)))
        found[part] = next(kinds, None) or _refuse(name, folder, part, library, allow_pickle)
    return found


def _kinds(allow_pickle: bool) -> list[Stored]:
    return [Stored(variant, safe) for safe in (True, False)[: 1 + allow_pickle] for variant in (None, *VARIANTS)]


def _refuse(name: str, folder: Path, part: str, library: str, allow_pickle: bool) -> NoReturn:
    wanted, pickled = (Stored(safe=safe).patterns(library, part)[0] for safe in (True, False))
    held = sorted({file.name for pattern in OTHERS for file in (folder / part).glob(pattern)})
    there = f"; what is there: {', '.join(held[:4])}" if held else ""
    pickles = [pattern for variant in (None, *VARIANTS) for pattern in Stored(variant, False).patterns(library, part)]
    if held and not hub.holds(folder, pickles):  # to allow them would not help
        raise DiffcernError(
            f"{name} has no weights under the names that {library} gives them: neither {wanted} nor {pickled}, nor "
            f"those of {' or '.join(VARIANTS[1:])}{there}. Other variants (non_ema, int8), formats (TensorFlow, ONNX) "
            "and adapters are other weights: convert them with the library that wrote them"
        )
    if allow_pickle:
        raise DiffcernError(f"{name} has no weights: neither {wanted} nor {pickled}{there}")
    raise DiffcernError(
        f"{name} is incomplete, or has no weights in safetensors format ({wanted}){there}. Pickled weights can run "
        "code when they are read: convert them (docs/priors.md says how), or pass allow_pickle=True (--allow-pickle) "
        "if you trust where they come from"
    )


def _part(config: Path) -> str:
    """What a library's config.json is of, in words."""
    content = read_json(config, finite=False)
    known = content if isinstance(content, dict) else {}
    name = known.get("_class_name") or next(iter(known.get("architectures") or ()), None) or known.get("model_type")
    return f"one network alone ({name})" if isinstance(name, str) else "one network alone"


def single_file(place: Path, convert: str) -> str:
    """For a message: what to do with weights in one file without configurations, as other programs exchange them; ""
    where `place` is no such file or folder of some. convert: the call that reads one, with FILE in it. A folder with an
    adapter, or with a part of a pipeline, is told as what it is."""
    if place.is_dir() and any((place / name).is_file() for name in ADAPTERS):
        return ". It holds an adapter (LoRA) and no network: load its base model with it, fuse both and save the whole"
    if (place / "config.json").is_file():
        return f". It is {_part(place / 'config.json')}: give the folder of the whole, which this one lies in"
    files = [place] if place.is_file() else sorted(place.glob("*")) if place.is_dir() else []
    names = [file.name for file in files if file.suffix.lower() in SINGLE]
    if not names:
        return ""
    return f". {names[0]} holds weights alone, and no word of the network: convert it once, {convert}"
