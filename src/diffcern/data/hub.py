"""Image data sets of the Hugging Face hub, downloaded and cached by the `datasets` library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffcern.data import columns
from diffcern.data.base import Accepts, Sample
from diffcern.data.images import UnreadableImage, decode
from diffcern.data.maps import known, map_columns, whose_names
from diffcern.data.names import unique
from diffcern.errors import DiffcernError
from diffcern.optional import optional

BUFFER = 10_000  # rows that a stream is shuffled among


class HubImages:
    """One split of a hub data set; columns of images, labels, masks and depth maps are found from its features.

    repository: "uoft-cs/cifar10"; split: "test", or a slice such as "test[:100]". ids, class_names, mask_names,
    max_side: as for `ParquetImages`. streamed: as many rows, from a seeded shuffle of the stream, without downloading
    the rest; their encoded images are held in memory. Raises `DiffcernError` where it cannot be loaded (no network, no
    such split, …).
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
        mask_names: Sequence[str] | None = None,
    ) -> None:
        datasets = optional("datasets")  # seconds to import, and only needed here

        self.name = "/".join(filter(None, [repository, config, split]))
        load = datasets.load_dataset
        try:
            rows = load(repository, config, split=split, streaming=streamed is not None)
            if streamed is not None:
                rows = _first(rows, streamed)
        except Exception as error:  # http, socket, cache and builder errors, of several libraries
            raise DiffcernError(
                f"cannot load {repository!r} (configuration {config or 'default'}, split {split}) from the "
                f"Hugging Face hub: {error}\nA data set not yet cached on this machine needs a network."
            ) from error
        features = rows.features.to_dict()
        encoded = columns.encoded_columns(features)
        maps = map_columns(encoded)
        others = [column for column in rows.column_names if column not in maps.columns]
        self._image = columns.image_column(others, features, None, self.name)
        plain = [column for column in others if column not in encoded]  # pictures are no labels
        label = columns.label_column(plain, features, None, self.name)
        ids = rows.select_columns("id")[:]["id"] if "id" in rows.column_names else range(len(rows))
        self.ids = unique(map(str, ids), self.name)
        own, theirs = whose_names(label is not None, maps.mask is not None, class_names, mask_names)
        self.targets: Sequence[int] = [-1] * len(rows)
        if label is not None:
            values = rows.select_columns(label)[:][label]
            self.targets, own = columns.labels(values, label, own, features, self.name)
        self.class_names, self.class_ids = columns.classes(own, features, label, self.targets, self.name)
        self._maps = replace(maps, indices=tuple(theirs or ()))
        self.mask_names = known(self._maps.indices)
        pixels = [self._image, *maps.columns]
        self._rows = _undecoded(rows.select_columns(pixels), pixels)
        self._max_side = max_side

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        row = range(len(self))[index]
        values, name = self._rows[row], self.ids[row]
        source = columns.stored(values[self._image], Path(), name)
        if source is None:
            raise UnreadableImage(name, f"column {self._image!r} holds no image in this row")
        mask, depth = self._maps.decode(
            lambda column: columns.content(columns.stored(values[column], Path(), name), name), name
        )
        return Sample(name, decode(source, name, self._max_side), self.targets[row], mask, depth)


def _undecoded(rows: Any, images: Sequence[str]) -> Any:
    """The rows with these columns as bytes: our own decoder handles 16 bits, transparency and rotation."""
    datasets = optional("datasets")

    for column in images:
        rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


def _first(stream: Any, count: int) -> Any:
    """The first rows of a shuffled stream, as a data set in memory; images stay encoded."""
    datasets = optional("datasets")

    features = stream.features.to_dict()
    encoded = _undecoded(stream, [c for c in features if columns.is_image(features, c)])
    rows = list(encoded.shuffle(seed=0, buffer_size=BUFFER).take(count))
    return datasets.Dataset.from_list(rows, features=encoded.features)
