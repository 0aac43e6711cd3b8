"""What the report shows of a data set: some images of each shift, and some masks or depths."""

from __future__ import annotations

import pyarrow as pa

from diffcern.data import UnreadableImage, encode_png
from diffcern.run.bench import PICTURES_PER_CELL, Bench

EXAMPLES_PER_CELL = 24  # images kept for the report's gallery, where their answers are in the records


def examples(bench: Bench) -> pa.Table:
    """Some images of each shift, beside the clean ones, as PNG."""
    rows = []
    count = PICTURES_PER_CELL if bench.dense else EXAMPLES_PER_CELL
    for shift, severity in bench.spec.shifts.cells:
        for position, index in enumerate(bench.order[:count]):
            try:
                if bench.dense:
                    bench.truths.sample(index)
                sample = bench.dataset[index]
                image = bench.shifted_image(sample, position, shift, severity)
            except UnreadableImage:
                continue
            rows.append(
                {
                    "shift": shift,
                    "severity": severity,
                    "id": sample.id,
                    "image": encode_png(image),
                    "clean": encode_png(sample.image),
                }
            )
    return pa.Table.from_pylist(rows)


def truths(bench: Bench) -> pa.Table | None:
    """The masks or depths of the first of those images, as PNG by id; None where truths are labels."""
    if not bench.dense:
        return None
    rows = []
    for index in bench.order[:PICTURES_PER_CELL]:
        try:
            picture = bench.truths.picture(index)
        except UnreadableImage:
            continue
        if picture is not None:
            rows.append({"id": bench.dataset.ids[index], "png": picture})
    return pa.Table.from_pylist(rows, schema=pa.schema([("id", pa.string()), ("png", pa.binary())]))
