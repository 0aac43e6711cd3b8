"""Draws docs/images/before-after.png from the records of the demo.

    diffcern demo && python docs/picture.py demo-run

Takes, for each shift, the first image (in the run's order) that source gets wrong and diffusion-tta right, so it shows
what success looks like; the table in docs/start.md says how often that happens.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pyarrow.parquet as pq

SHIFTS = ("noise", "pepper", "blur", "background")
BEFORE, AFTER = "#b8bcc4", "#2166ac"


def main(run: Path) -> None:
    names = json.loads((run / "classes.json").read_text())
    rows = [row for path in sorted((run / "records").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    by_key = {(row["entry"], row["shift"], row["id"]): row for row in rows}
    examples = pq.read_table(run / "examples.parquet").to_pylist()
    figure, axes = plt.subplots(2, len(SHIFTS), figsize=(9.6, 3.6), height_ratios=(1.25, 1), layout="constrained")
    for (top, bottom), shift in zip(axes.T, SHIFTS, strict=True):
        for example in examples:
            source = by_key.get(("source", shift, example["id"]))
            adapted = by_key.get(("diffusion-tta", shift, example["id"]))
            if example["shift"] != shift or not source or not adapted:
                continue
            if source["prediction"] != source["target"] and adapted["prediction"] == adapted["target"]:
                break
        else:
            raise SystemExit(f"no image of {shift} in examples.parquet went from wrong to right")
        top.imshow(plt.imread(io.BytesIO(example["image"])), vmin=0, vmax=1)
        top.set_title(f"{shift}: {names[source['prediction']]} → {names[adapted['prediction']]}", fontsize=11)
        top.axis("off")
        x = range(len(names))
        bottom.bar([i - 0.2 for i in x], source["probabilities"], 0.4, color=BEFORE, label="before")
        bottom.bar([i + 0.2 for i in x], adapted["probabilities"], 0.4, color=AFTER, label="after")
        bottom.set_xticks(list(x), names, fontsize=8)
        bottom.set_yticks([])
        bottom.spines[["top", "right", "left"]].set_visible(False)
    axes[1, 0].legend(frameon=False, fontsize=9)
    figure.savefig(Path(__file__).parent / "images" / "before-after.png", dpi=130)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-run"))
