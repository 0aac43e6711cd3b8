"""One image against many captions, from the scenes: a table for `diffcern match`, to see what a shortlist does.

    python benchmarks/captions.py many.parquet [--count 60]
    diffcern match many.parquet --prior embedded:scenes-text --weighting x0 --draws 64 --dtype bfloat16 \\
        --strategy van-der-corput --stop race --first 0.4,1 --shortlist 20 --shortlist-draws 16 --out rows.parquet
    python benchmarks/captions.py many.parquet --compare all.parquet race.parquet rows.parquet

Every image of the test split's first pairs is asked about its own caption and all the others'. --compare: what each
table of rows cost, in forward evaluations, how often its text scores are the first table's, and how often all of its
scores are; `benchmarks/captions.py - --compare ...` takes tables of `diffcern match embedded:scenes` too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from wording import share

from diffcern.data import encode_png, load_pairs

SCORES = ("text", "image", "group", "image_corrected", "group_corrected")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--compare", type=Path, nargs="+")
    options = parser.parse_args()
    if options.compare:
        return compare(options.compare)
    pairs, images = load_pairs("embedded:scenes"), dict[str, bytes]()
    for number in range(len(pairs)):
        example = pairs[number]
        images.setdefault(example.captions[0], encode_png(example.images[0]))
        if len(images) == options.count:
            break
    others = [[caption for caption in images if caption != own] for own in images]
    columns = {"image": list(images.values()), "caption": list(images), "negatives": others}
    pq.write_table(pa.table(columns), options.table)
    return None


def compare(files: list[Path]) -> None:
    tables = [{row["id"]: row for row in pq.read_table(file).to_pylist()} for file in files]
    scores = [name for name in SCORES if name in next(iter(tables[0].values()))]
    print(f"N = {len(tables[0]):<22}{'evaluations':>12}{'text the same, %':>22}{'all the same, %':>22}{'text, %':>22}")
    for file, rows in zip(files, tables, strict=True):
        cost = sum(row["nfe_forward"] + 2 * row.get("nfe_backward", 0) for row in rows.values()) / len(rows)
        same = [
            sum(all(rows[id][name] == row[name] for name in some) for id, row in tables[0].items())
            for some in (["text"], scores)
        ]
        shares = "".join(f"{share(count, len(rows)):>22}" for count in (*same, right(rows)))
        print(f"{file.stem:26}{cost:12.1f}{shares}")


def right(rows: dict[str, Any]) -> int:
    return sum(row["text"] for row in rows.values())


if __name__ == "__main__":
    main()
