"""Purified images in shards: WebDataset tars or Parquet files of `parts.PART` images each, with a manifest."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffcern.data import Dataset
from diffcern.data.places import read_file
from diffcern.fingerprints import digest
from diffcern.run.digests import of_images
from diffcern.run.parts import Parts

SUFFIXES = {"webdataset": ".tar", "parquet": ".parquet"}
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.int64()),
        ("error", pa.string()),
    ]
)


class PurifiedShards:
    """The images of a data set on their way into shards, and which of them are not there yet. Raises as `Parts`."""

    def __init__(self, folder: Path | str, dataset: Dataset, settings: Mapping[str, Any], form: str) -> None:
        write = {"webdataset": write_tar, "parquet": partial(write_table, dataset.class_names)}[form]
        self.targets = dataset.targets if dataset.class_names else ()
        labels = digest([dataset.class_names, dataset.targets]) if dataset.class_names else ""
        how: dict[str, Any] = {"digests": partial(of_images, dataset), "form": (SUFFIXES[form], write)}
        self.folder, self.form = folder, form
        self.parts = Parts(folder, {**settings, "form": form, "labels": labels}, dataset.ids, **how)
        self.storage = self.parts.storage
        self.todo = self.parts.todo()
        self.there = self.parts.done - self.parts.skipped

    def add(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps an image of a `Purification`: its id, shard and error."""
        png = base64.b64encode(made["png"]).decode() if made.get("png") else ""
        target = self.targets[self.parts.place(made["id"])] if self.targets else -1
        self.parts.add({"id": made["id"], "png": png, "label": target, "error": made["error"]})
        return {"id": made["id"], "file": None if made["error"] else str(self.folder), "error": made["error"]}

    def finish(self) -> dict[str, bytes]:
        """The images of the first shard that has some: PNG files by id."""
        for path in self.parts.finish().paths:
            if found := self._images(path):
                return found
        return {}

    def close(self) -> None:
        self.parts.close()

    @property
    def skipped(self) -> int:
        """Of those that are there."""
        return self.parts.skipped

    def _images(self, path: str) -> dict[str, bytes]:
        content = read_file(path)
        if self.form == "parquet":
            rows = pq.read_table(pa.BufferReader(content)).to_pylist()
            return {row["id"]: row["image"]["bytes"] for row in rows if row["image"]}
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            found = {name: archive.extractfile(name) for name in archive.getnames()}
            inside = {name: file.read() for name, file in found.items() if file}
        said = {name: json.loads(text) for name, text in inside.items() if name.endswith(".json")}
        return {about["id"]: inside[f"{name.removesuffix('.json')}.png"] for name, about in said.items()}


def write_table(class_names: Sequence[str], rows: list[dict[str, Any]], file: Path) -> None:
    """As the Hugging Face hub has tables of images; those that were skipped have an error, and no image."""
    table = pa.Table.from_pylist(
        [
            {
                "id": row["id"],
                "image": {"bytes": base64.b64decode(row["png"]), "path": None} if row["png"] else None,
                "label": row["label"] if row["label"] >= 0 else None,
                "error": row["error"],
            }
            for row in rows
        ],
        SCHEMA,
    )
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(class_names)}}
    said = json.dumps({"info": {"features": features if class_names else {"image": {"_type": "Image"}}}})
    pq.write_table(table.replace_schema_metadata({"huggingface": said}), file)


def write_tar(rows: list[dict[str, Any]], file: Path) -> None:
    """KEY.png, KEY.cls where there is a label, and KEY.json with the id, for the key is the id without dots."""
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        for row in rows:
            if not row["png"]:
                continue
            members = {"json": json.dumps({"id": row["id"]}).encode(), "png": base64.b64decode(row["png"])}
            if row["label"] >= 0:
                members["cls"] = str(row["label"]).encode()
            for suffix, content in sorted(members.items()):
                info = tarfile.TarInfo(f"{key(row['id'])}.{suffix}")  # of no time and nobody: the same bytes each time
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def key(id: str) -> str:
    """WebDataset takes what stands before the first dot for the key: dots are written %2E, and no two ids are one."""
    parts = id.replace("%", "%25").replace(".", "%2E").split("/")
    return "/".join(part or "%2F" for part in parts)  # of a path from the root
