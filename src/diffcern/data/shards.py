"""What a WebDataset shard holds, and where: read from its headers, and of a shard in a store kept on this machine.

A store's shard is fetched whole for that, for its headers lie between its images; a command that goes on fetches none.
"""

from __future__ import annotations

import json
import tarfile
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from diffcern.data.formats import is_image
from diffcern.data.places import open_file, reaching, version_of
from diffcern.errors import DiffcernError
from diffcern.files import cache_folder, is_url, write_whole
from diffcern.fingerprints import digest

LABEL = "cls"
Place = tuple[int, int]  # the first byte, and how many


class Members(NamedTuple):
    """Of each sample: where its image lies, and its label where it has one."""

    images: dict[str, Place]
    labels: dict[str, str]


def members(shard: str) -> Members:
    """What a shard holds. Raises DiffcernError for one that is damaged, truncated, or says things twice."""
    version = version_of(shard) if is_url(shard) else ""
    if not version:
        return _read(shard)
    kept = cache_folder("shards") / f"{digest([shard, version])}.json"
    with suppress(Exception):  # there is none, or a damaged one
        return _kept(kept)
    found = _read(shard)
    with suppress(OSError):  # a full disk: it is read again the next time
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, json.dumps(found).encode())
    return found


def _kept(path: Path) -> Members:
    images, labels = json.loads(path.read_bytes())
    return Members({key: (int(start), int(size)) for key, (start, size) in images.items()}, labels)


def _read(shard: str) -> Members:
    images: dict[str, Place] = {}
    dotted: dict[str, tuple[str, Place]] = {}  # by name without the last suffix: a.seg, img.001
    labels: dict[str, str] = {}
    with reaching(shard), open_file(shard) as file:
        length = file.seek(0, 2)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # it would keep a kilobyte of each
                    folder, _, base = member.name.rpartition("/")
                    stem, _, suffix = base.partition(".")
                    if not member.isfile() or not stem:
                        continue
                    key = f"{folder}/{stem}" if folder else stem
                    if member.offset_data + member.size > length:
                        raise DiffcernError(f"{shard} ends within {member.name}: it was truncated; write it again")
                    if is_image(PurePosixPath(f"x.{suffix}")):
                        place = member.offset_data, member.size
                        if "." in suffix:
                            dotted[f"{key}.{suffix.rpartition('.')[0]}"] = key, place
                        elif key in images:
                            raise DiffcernError(
                                f"{shard} holds two images called {key}: which one is meant? Rename the other."
                            )
                        else:
                            images[key] = place
                    elif f".{suffix}".lower().endswith(f".{LABEL}"):
                        inner, _, _ = suffix.rpartition(".")
                        labels[f"{key}.{inner}" if inner else key] = _text(archive.extractfile(member))
        except tarfile.TarError as error:
            raise DiffcernError(f"{shard} is damaged, or no tar file ({error}): write it again") from error
    return Members({**images, **{name: at for name, (key, at) in dotted.items() if key not in images}}, labels)


def _text(file: IO[bytes] | None) -> str:
    return file.read(1000).decode("utf-8", "replace").strip() if file else ""
