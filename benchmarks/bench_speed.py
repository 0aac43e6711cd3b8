"""Is a bench faster than it was? This tree beside another commit's, one after the other.

    python benchmarks/bench_speed.py [f4d4814] [--count 20] [--repeats 5]

Two specifications. "the same questions": the options of the older one's preset for small models, spelt out on both
sides, so that predictions must be the same but for rounding. "presets": `diffcern bench digits`, as it is on each
side. Seconds are from start to report; nothing else should run. Sides take turns in going first, for a machine's own
speed drifts by more than what is looked for: the geometric mean of the pairs' ratios stands with its interval.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import sem
from scipy.stats import t as student
from wording import share

ROOT = Path(__file__).resolve().parent.parent
SAME = """
name = "same"
[data]
dataset = "embedded:digits"
count = {count}
[models]
predictor = "embedded:digits"
prior = "embedded:digits"
[shifts]
names = ["clean", "noise", "pepper", "blur", "contrast", "background", "clutter", "rotation", "occlusion"]
severities = [4]
[entries.source]
method = "source"
batch_size = {count}
[entries.diffusion-tta]
method = "diffusion-tta"
[entries.diffusion-tta.options]
steps = 5
draws = 16
strategy = "stratified"
weighting = "x0"
optimizer = "sgd"
learning_rate = 0.05
temperature = 2.0
adapt_prior = false
familiar = 0.99
[entries.diffusion-classifier]
method = "diffusion-classifier"
options = {{ draws = 16, weighting = "x0", strategy = "fixed-bank" }}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", default="f4d4814")
    parser.add_argument("--count", type=int, default=20, help="images of each shift")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place, older = Path(folder), Path(folder) / "older"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(older), options.commit], check=True, capture_output=True)
        try:
            (place / "same.toml").write_text(SAME.format(count=options.count))
            presets = ["digits", "--set", f"data.count={options.count}"]
            for name, what in {"the same questions": ["same.toml"], "presets": presets}.items():
                compared(name, what, {"before": older, "now": ROOT}, place, options.repeats)
        finally:
            subprocess.run([*git, "remove", "--force", str(older)], check=True)


def compared(name: str, what: list[str], trees: dict[str, Path], place: Path, repeats: int) -> None:
    seconds: dict[str, list[float]] = {which: [] for which in trees}
    runs: dict[str, dict[tuple[str, ...], int]] = {}
    for repeat in range(repeats):
        for which in list(trees)[:: 1 if repeat % 2 == 0 else -1]:
            out = place / f"{name.replace(' ', '-')}-{which}-{repeat}"
            command = [sys.executable, "-c", "from diffcern.cli import main; main()", "bench", *what, "--out", str(out)]
            begin = time.perf_counter()
            environment = {**os.environ, "PYTHONPATH": str(trees[which] / "src")}
            subprocess.run(command, check=True, capture_output=True, cwd=place, env=environment)
            seconds[which].append(time.perf_counter() - begin)
            runs[which] = predictions(out)
    ratios = [before / now for before, now in zip(seconds["before"], seconds["now"], strict=True)]
    shown = ", ".join(f"{which} {' and '.join(f'{s:.1f}' for s in found)} s" for which, found in seconds.items())
    both = runs["before"].keys() & runs["now"].keys()
    same = share(sum(runs["before"][key] == runs["now"][key] for key in both), len(both))
    print(f"{name}: {shown}: {ratio_of(ratios)} times as fast; the same predictions, %: {same}, N = {len(both)}")


def ratio_of(ratios: list[float]) -> str:
    """Their geometric mean with Student's 95 % interval."""
    logs = np.log(ratios)
    mean, error = float(logs.mean()), float(sem(logs))
    low, high = student.interval(0.95, len(logs) - 1, mean, error)
    return f"{np.exp(mean):.2f} [{np.exp(low):.2f}, {np.exp(high):.2f}]"


def predictions(out: Path) -> dict[tuple[str, ...], int]:
    rows = [row for file in (out / "records").iterdir() for row in pq.read_table(file).to_pylist()]
    return {(row["entry"], row["shift"], row["id"]): row["prediction"] for row in rows}


if __name__ == "__main__":
    main()
