"""Image data sets of the Hugging Face hub, downloaded and cached by the `datasets` library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffcern.data import columns
from diffcern.data.base import Accepts, Sample
from diffcern.data.images import UnreadableImage, decode
from diffcern.errors import DiffcernError

BUFFER = 10_000  # rows that a stream is shuffled among


class HubImages:
    """One split of a hub data set; image and label columns are found from its features.

    repository: "uoft-cs/cifar10"; split: "test", or a slice such as "test[:100]". ids, class_names, max_side:
    as for `ParquetImages`. streamed: as many rows, from a seeded shuffle of the stream, without downloading the rest;
    their encoded images are held in memory. Raises `DiffcernError` where it cannot be loaded (no network, no such
    split, …).
    """

    accepts: Accepts = None

    def __init__(
        self,
        repository: str,
        split: str,
        config: str | None = None,
        class_names: Sequence[str] | None = None,
        max_side: int | None = None,
        streamed: int | None = None,
    ) -> None:
        import datasets  # seconds to import, and only needed here

        self.name = "/".join(filter(None, [repository, config, split]))
        try:
            rows = datasets.load_dataset(repository, config, split=split, streaming=streamed is not None)
            if streamed is not None:
                rows = _first(rows, streamed)
        except Exception as error:  # http, socket, cache and builder errors, of several libraries
            raise DiffcernError(
                f"cannot load {repository!r} (configuration {config or 'default'}, split {split}) from the "
                f"Hugging Face hub: {error}\nA data set not yet cached on this machine needs a network."
            ) from error
        features = rows.features.to_dict()
        self._image = columns.image_column(rows.column_names, features, None, self.name)
        label = columns.label_column(rows.column_names, features, None, self.name)
        self.targets: Sequence[int] = [-1] * len(rows)
        if label is not None:
            self.targets = columns.integers(rows.select_columns(label)[:][label], label, self.name)
        ids = rows.select_columns("id")[:]["id"] if "id" in rows.column_names else range(len(rows))
        self.ids = columns.unique([str(value) for value in ids], self.name)
        self.class_names, self.class_ids = columns.classes(class_names, features, label, self.targets, self.name)
        # encoded bytes: our own decoder handles 16 bits, transparency and rotation
        self._rows = rows.select_columns(self._image).cast_column(self._image, datasets.Image(decode=False))
        self._max_side = max_side

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        row = range(len(self))[index]
        value = self._rows[row][self._image] or {}
        source = value.get("bytes") or (Path(value["path"]) if value.get("path") else None)
        if source is None:
            raise UnreadableImage(self.ids[row], f"column {self._image!r} holds no image in this row")
        return Sample(self.ids[row], decode(source, self.ids[row], self._max_side), self.targets[row])


def _first(stream: Any, count: int) -> Any:
    """The first rows of a shuffled stream, as a data set in memory; images stay encoded."""
    import datasets

    features = stream.features
    described = columns.image_column(list(features), features.to_dict(), None, "the stream")
    encoded = stream.cast_column(described, datasets.Image(decode=False))
    rows = list(encoded.shuffle(seed=0, buffer_size=BUFFER).take(count))
    return datasets.Dataset.from_list(rows, features=encoded.features)
