"""The tensors of a checkpoint and those of its network: exactly the same, or an error that names them and the file.

One check for all models. Networks that libraries load report what did not fit (`check_fit`); those of diffcern's own
formats are read here, tensor by tensor (`read_weights`), from safetensors that carry a digest of their content.
Knows nothing about what the networks are.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from diffcern.errors import DiffcernError
from diffcern.files import reading, write_whole
from diffcern.texts import read_json

DIGEST = "diffcern"  # in a file's metadata; files without one, older or of other makers, are read too
DAMAGED = "It may be truncated, or belong to another model"
DROPOUT = re.compile(r".*dropout(_prob|_rate)?")
HEX = re.compile(r"[0-9a-f]{32}")
DEPTH = re.compile(r".*layers(_per_block)?|depths?|n_layer|num_blocks")  # keys that count layers
Stored = Mapping[str, tuple[tuple[int, ...], str]]  # shape and kind of number of each tensor in a file


def check_fit(
    what: str,
    missing: Iterable[str] = (),
    unexpected: Iterable[str] = (),
    mismatched: Iterable[str] = (),
    *,
    described: str = "its config.json",
) -> None:
    """Raises DiffcernError unless nothing is left over on either side.

    what: whose weights these are, in messages; described: the file that says what its network is.
    """
    problems = {"lacks": missing, "has too many:": unexpected, "has another shape or type of": mismatched}
    found = [f"{verb} {_named(keys)}" for verb, names in problems.items() if (keys := sorted(names))]
    if found:
        raise DiffcernError(f"the weights {what} do not fit {described}: it {'; it '.join(found)}")


def check_loaded(what: str, info: Mapping[str, Any]) -> None:
    """`check_fit` for what diffusers and transformers say of a network that they have loaded."""
    mismatched = [mismatch[0] for mismatch in info.get("mismatched_keys", [])]
    check_fit(what, info["missing_keys"], info["unexpected_keys"], mismatched)


def _named(keys: list[str]) -> str:
    return f"{len(keys)} tensors ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"


def check_finite(what: str, tensors: Mapping[str, Tensor]) -> None:
    """Raises DiffcernError that names a tensor with NaN or infinity in it."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DiffcernError(
                f"the weights {what} hold NaN or infinity in {name}: they are damaged, or overflowed: "
                "restore them, or train with a lower learning rate"
            )


def check_network(what: str, network: nn.Module, files: Iterable[Path]) -> None:
    """What can be said of a network that a library has loaded: its weights are finite, and were stored as numbers of
    its kind (libraries turn whole numbers into floats without a word). files: those it was read from, if safetensors.

    Raises DiffcernError.
    """
    state = network.state_dict()
    for file in files:
        with reading(file, DAMAGED):
            stored = _stored(file)
            renamed = {name: kind for name, (_, kind) in stored.items() if name not in state}  # by the library
            odd = {name for name, kind in renamed.items() if kind != "float" and name.endswith((".weight", ".bias"))}
            check_fit(what, mismatched=odd | _of_other_kind(stored, state))
            with safe_open(file, framework="pt") as content:
                if written := _written(content.metadata()):  # of `diffcern train clip`
                    _check_digest(file, written, {name: content.get_tensor(name) for name in content.keys()})  # noqa: SIM118
    check_finite(what, state)


def check_described(config: Path, build: Callable[[], nn.Module], files: Sequence[Path]) -> None:
    """Raises DiffcernError where a library's config.json describes a network far beyond what the weights hold, before
    anything of that size is made: more layers than there are tensors, or several times as many numbers.

    build: the network of that config.json; where it cannot be built without memory, only its layers are looked at.
    """
    stored = {name: shape for file in files for name, (shape, _) in _stored(file).items()}
    if not stored:
        return
    for key, count in _numbers(read_json(config, finite=False)):
        if DROPOUT.fullmatch(key) and not 0 <= count <= 1:
            raise DiffcernError(f"{config} says {key} = {count}, which is a share, 0 to 1")
        if DEPTH.fullmatch(key) and count > len(stored):
            raise DiffcernError(
                f"{config} speaks of {key} = {count}, and its weights hold {len(stored)} tensors: restore "
                "both from one place"
            )
    try:
        with torch.device("meta"):
            described = sum(tensor.numel() for tensor in build().state_dict().values())
    except Exception:  # some networks need real numbers to be built
        return
    held = sum(math.prod(shape) for shape in stored.values())
    if described > 4 * held + 1_000_000:
        raise DiffcernError(
            f"{config} describes a network of {described:,} numbers, and its weights hold {held:,}: "
            "restore both from one place"
        )


def _numbers(content: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a configuration, by their keys."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _numbers(value, name)
    elif isinstance(content, list):
        for value in content:
            yield from _numbers(value, key)
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield key, content


def check_shapes(build: Callable[[], nn.Module], file: Path, described: str) -> None:
    """Raises DiffcernError unless the file's tensors have the names and shapes of those of build(): without taking the
    memory for either, so that a width which is not the file's is an error and no disaster."""
    with torch.device("meta"):
        state = build().state_dict()
    with reading(file, DAMAGED):
        _check_stored(file, _stored(file), state, described)


def read_weights(network: nn.Module, file: Path, described: str) -> None:
    """Gives the network the tensors of a safetensors file, in place; dtypes stay the network's.

    described: what says what the network is, in messages ("its config.json"). Raises DiffcernError for a file that
    cannot be read or holds no tensors, one whose tensors are not those of the network by name, shape and kind of number
    or not finite, and one that is not what was written.
    """
    state = network.state_dict()
    with reading(file, DAMAGED):
        _check_stored(file, _stored(file), state, described)
        with safe_open(file, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118, not a mapping
            written = _written(content.metadata())
        _check_digest(file, written, tensors)
        check_finite(f"in {file}", tensors)
        network.load_state_dict(tensors)


def write_weights(tensors: Mapping[str, Tensor], file: Path, dtype: torch.dtype | None = None) -> None:
    """Writes what `read_weights` reads, whole or not at all; dtype: of floating-point tensors, None for their own."""
    state = {
        name: value.detach().cpu().to(dtype if dtype and value.is_floating_point() else None, copy=True).contiguous()
        for name, value in tensors.items()  # copies: a file holds no shared memory
    }
    # "format" is for diffusers and transformers, which read some of these files too
    write_whole(file, _with_metadata(save(state), {"format": "pt", DIGEST: _digest(state)}))


def _with_metadata(content: bytes, metadata: dict[str, str]) -> bytes:
    """A safetensors file with metadata in this order: safetensors itself puts several in another order every time."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps({"__metadata__": metadata, **json.loads(content[8:start])}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:]


def _stored(file: Path) -> Stored:
    with safe_open(file, framework="pt") as content:
        slices: dict[str, Any] = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118
        return {name: (tuple(part.get_shape()), _kind(part.get_dtype())) for name, part in slices.items()}


def _kind(dtype: str) -> str:
    """Of safetensors' names: F32, BF16, F8_E4M3, ...; C64; I8, U8, BOOL, ..."""
    return "float" if dtype.startswith(("F", "BF")) else "complex" if dtype.startswith("C") else "whole"


def _kind_of(tensor: Tensor) -> str:
    return "float" if tensor.is_floating_point() else "complex" if tensor.is_complex() else "whole"


def _check_stored(file: Path, stored: Stored, state: Mapping[str, Tensor], described: str) -> None:
    if not stored:
        raise DiffcernError(f"{file} holds no tensors at all: it is not what was trained, restore it")
    shapes = {name for name, (shape, _) in stored.items() if name in state and shape != tuple(state[name].shape)}
    check_fit(
        f"in {file}",
        state.keys() - stored.keys(),
        stored.keys() - state.keys(),
        shapes | _of_other_kind(stored, state),
        described=described,
    )


def _of_other_kind(stored: Stored, state: Mapping[str, Tensor]) -> set[str]:
    """The tensors that are floats on one side and whole numbers on the other."""
    return {name for name, (_, kind) in stored.items() if name in state and kind != _kind_of(state[name])}


def _written(metadata: Mapping[str, str] | None) -> str | None:
    """The digest in a file's metadata, if there is one; also where the name that it has there is damaged."""
    metadata = metadata or {}
    return metadata.get(DIGEST, next((value for value in metadata.values() if HEX.fullmatch(value)), None))


def _check_digest(file: Path, written: str | None, tensors: Mapping[str, Tensor]) -> None:
    if written is not None and written != _digest(tensors):
        raise DiffcernError(f"{file} was changed or damaged since it was written (its checksum differs): restore it")


def _digest(tensors: Mapping[str, Tensor]) -> str:
    result = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        result.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return result.hexdigest()
