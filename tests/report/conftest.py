"""A fake run folder: answers of three made-up entries with accuracies that are known in advance."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

SHIFTS = ("gaussian_noise", "defocus_blur", "fog", "contrast")
ENTRIES: list[dict[str, Any]] = [
    {"entry": "source", "method": "source", "protocol": "episodic", "batch_size": 1, "needs_batch": False},
    {"entry": "tent", "method": "tent", "protocol": "online", "batch_size": 16, "needs_batch": True},
    {
        "entry": "diffusion-tta",
        "method": "diffusion-tta",
        "protocol": "episodic",
        "batch_size": 1,
        "needs_batch": False,
    },
]
# Chance of a right answer on clean and on shifted images.
SKILL = {"source": (0.9, 0.45), "tent": (0.88, 0.5), "diffusion-tta": (0.88, 0.8), "harmful": (0.6, 0.05)}
Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def run(**options: Any) -> Path:
        return build_run(tmp_path / "run", **options)

    return run


def build_run(
    path: Path,
    *,
    entries: Sequence[dict[str, Any]] = ENTRIES,
    shifts: Sequence[str] = SHIFTS,
    severities: Sequence[int] = (3,),
    n: int = 40,
    classes: Sequence[str] = ("zero", "one", "two", "three", "four"),
    targets: bool = True,
    examples: bool = True,
    seed: int = 0,
) -> Path:
    """A run folder as `diffcern bench` leaves it."""
    rng = np.random.default_rng(seed)
    k = len(classes)
    target = rng.integers(0, k, n)
    difficulty = rng.uniform(size=n)
    conditions = [("clean", 0), *((shift, severity) for shift in shifts for severity in severities)]
    records, timings = [], []
    for entry in entries:
        name = entry["entry"]
        heavy = name == "diffusion-tta"
        for shift, severity in conditions:
            skill = SKILL.get(name, (0.85, 0.55))[shift != "clean"] - 0.03 * max(0, severity - 3)
            if shift != "clean":  # shifts differ, and entries differ in which one they mind
                skill = float(np.clip(skill + rng.choice([-0.15, -0.05, 0.05, 0.15]), 0, 1))
            luck = 0.5 * difficulty + 0.5 * rng.uniform(size=n)  # errors of entries go together, as in life
            right = np.argsort(np.argsort(luck)) < round(skill * n)
            for i in range(n):
                prediction = int(target[i]) if right[i] else int((target[i] + rng.integers(1, k)) % k)
                logits = rng.normal(size=k)
                logits[prediction] = logits.max() + rng.uniform(0.1, 3)
                p = np.exp(logits) / np.exp(logits).sum()
                start = rng.uniform(0.5, 1.5)
                trace = [float(start - 0.03 * s + 0.02 * rng.normal()) for s in range(6)] if heavy else []
                key = {"entry": name, "shift": shift, "severity": severity, "id": f"img-{i:04d}"}
                records.append(
                    key
                    | {
                        "method": entry["method"],
                        "dataset": "digits",
                        "index": i,
                        "target": int(target[i]) if targets else -1,
                        "prediction": prediction,
                        "probabilities": p.tolist(),
                        "nfe_forward": 180 if heavy else 0,
                        "nfe_backward": 180 if heavy else 0,
                        "loss_trace": trace,
                        "notes": "{}",
                    }
                )
                timings.append(key | {"seconds": 0.9 if heavy else 0.004, "peak_memory_mb": 512.0})
    write(path / "records" / "0.parquet", records)
    write(path / "timings" / "0.parquet", timings)
    (path / "entries.json").write_text(json.dumps([{"description": f"the {e['entry']} entry"} | e for e in entries]))
    (path / "classes.json").write_text(json.dumps(list(classes)))
    (path / "spec.toml").write_text(f'[data]\nname = "digits"\n[shifts]\nnames = {json.dumps(list(shifts))}\n')
    if examples:
        write(path / "examples.parquet", [_example(s, v, i) for s, v in conditions for i in range(min(n, 12))])
    return path


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)


def read(run: Path) -> list[dict[str, Any]]:
    return pq.read_table(run / "records" / "0.parquet").to_pylist()


def plan(run: Path, images: int, conditions: Sequence[tuple[str, int]]) -> None:
    """What `diffcern bench` set out to do."""
    (run / "plan.json").write_text(json.dumps({"images": images, "conditions": conditions}))


def skip(run: Path, shift: str, severity: int, index: int) -> None:
    """Makes one image of a shift unreadable, for all entries."""
    here = [row for row in read(run) if (row["shift"], row["index"]) == (shift, index)]
    write(run / "records" / "0.parquet", [row for row in read(run) if row not in here])
    key = {"shift": shift, "severity": severity, "id": f"img-{index:04d}", "reason": "the file is empty"}
    write(run / "skipped" / f"{shift}-{index}.parquet", [{"entry": row["entry"]} | key for row in here])


def _example(shift: str, severity: int, i: int) -> dict[str, Any]:
    return {
        "shift": shift,
        "severity": severity,
        "id": f"img-{i:04d}",
        "image": _png(i, noise=60),
        "clean": _png(i, noise=0),
    }


def _png(seed: int, noise: float) -> bytes:
    ramp = np.add.outer(np.arange(8), np.arange(8)) * (10 + seed) % 255
    pixels = np.clip(ramp + np.random.default_rng(seed).normal(0, 1, (8, 8)) * noise, 0, 255)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
