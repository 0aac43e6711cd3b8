"""A method over a folder of images whose answers are maps: a file for each answer, a picture to look at, and a row."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor

from diffcern.data import Dataset, Sample, UnreadableImage, encode_png
from diffcern.data.maps import encode_depth, encode_mask
from diffcern.files import write_whole
from diffcern.methods import Method
from diffcern.methods.base import call
from diffcern.predictors import Predictor
from diffcern.run.batch import batch_of
from diffcern.run.predict import in_batches, unreadable
from diffcern.run.purify import file_names
from diffcern.tasks.base import resized
from diffcern.types import Inputs, Prediction

PALETTE = [tuple(round(255 * part) for part in colour) for colour in matplotlib.colormaps["tab20"].colors]  # type: ignore[attr-defined]


def adapt_maps(
    dataset: Dataset,
    method: Method,
    predictor: Predictor,
    folder: Path,
    *,
    online: bool,
    batch_size: int,
    seed: int,
    device: torch.device,
    done: set[str],
) -> Iterator[dict[str, Any]]:
    """Rows with how much of the answer changed, what it cost, and the files in `folder`; unreadable images too.

    NAME.png is the answer: class indices with a palette, or 16-bit depth in millimetres (relative inverse depth: from
    its least to its greatest). NAME-overlay.png or NAME-preview.png shows it. done: as in `predict.adapt_rows`.
    """
    names = file_names(dataset.ids)
    state = method.init()
    for samples in in_batches(dataset, batch_size, set() if online else done):
        good = [sample for sample in samples if isinstance(sample, Sample)]
        yield from (unreadable(sample) for sample in samples if isinstance(sample, UnreadableImage))
        if not good:
            continue
        images = batch_of([sample.image for sample in good], predictor).to(device)
        with torch.no_grad():
            before = call(predictor, {}, images)
        begin = time.perf_counter()
        if not online:
            state = method.init()
        prediction, state = method.step(state, Inputs(images, [sample.id for sample in good]), seed)
        seconds = (time.perf_counter() - begin) / len(good)
        for row, sample in enumerate(good):
            place = names[sample.id]
            written = _write(folder / place, prediction.output[row], sample.image, predictor)
            yield {
                "id": sample.id,
                "file": str(place),
                "picture": written.name,
                **_change(before[row], prediction.output[row], predictor.task),
                **_cost(prediction, row),
                "seconds": round(seconds, 4),
                "error": None,
            }


def _change(before: Tensor, after: Tensor, task: str) -> dict[str, Any]:
    """How far the answer moved: the share of pixels of another class, or the mean relative change of depth."""
    if task == "segmentation":
        return {"changed": round(float((before.argmax(0) != after.argmax(0)).float().mean()), 6)}
    return {"changed": round(float(((after - before).abs() / before.abs().clamp(min=1e-6)).mean()), 6)}


def _cost(prediction: Prediction, row: int) -> dict[str, Any]:
    trace = list(prediction.trace[row]) if prediction.trace else []
    return {
        "loss_first": trace[0] if trace else None,
        "loss_last": trace[-1] if trace else None,
        "steps": len(trace),
        "nfe_forward": prediction.costs[row].nfe_forward,
        "nfe_backward": prediction.costs[row].nfe_backward,
    }


def _write(path: Path, output: Tensor, image: Tensor, predictor: Predictor) -> Path:
    """Both files, the picture first: where the answer lies, all lies. Returns the picture's path."""
    shape = (image.shape[-2], image.shape[-1])
    maps = resized((output if output.ndim == 3 else output[None])[None].float().cpu(), shape)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    if predictor.task == "segmentation":
        classes = maps.argmax(0)
        picture, data = path.with_name(f"{path.stem}-overlay.png"), encode_mask(classes, PALETTE)
        write_whole(picture, encode_png((image + coloured_mask(classes)) / 2))
    else:
        depth = maps[0] if predictor.metric else 65.535 * scaled(maps[0])
        picture, data = path.with_name(f"{path.stem}-preview.png"), encode_depth(depth)
        write_whole(picture, encode_png(coloured_depth(maps[0], predictor.metric)))
    write_whole(path, data)
    return picture


def coloured_mask(classes: Tensor) -> Tensor:
    """Class indices `[H, W]` as colours `[3, H, W]` in [0, 1]; more than twenty classes share them in turn."""
    return (torch.tensor(PALETTE).float() / 255)[classes % len(PALETTE)].permute(2, 0, 1)


def coloured_depth(depth: Tensor, metric: bool) -> Tensor:
    """Depth `[H, W]` as colours `[3, H, W]` in [0, 1], near bright: by inverse depth, from the image's least to its
    greatest."""
    inverse = 1 / depth.clamp(min=1e-3) if metric else depth
    rgba = matplotlib.colormaps["magma"](scaled(inverse).numpy())
    return torch.from_numpy(rgba[..., :3]).permute(2, 0, 1).float()


def scaled(values: Tensor) -> Tensor:
    """From 0 at the least to 1 at the greatest."""
    low, high = values.aminmax()
    return (values - low) / (high - low).clamp(min=1e-6)
