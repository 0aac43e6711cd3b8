"""A method over a folder of images whose answers are maps: a file for each answer, a picture to look at, and a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import matplotlib
import torch
from torch import Tensor

from diffcern.data import UnreadableImage, encode_png
from diffcern.data.maps import DEEPEST, encode_depth, encode_mask, palette
from diffcern.errors import DiffcernError
from diffcern.files import write_whole
from diffcern.predictors import Predictor
from diffcern.run.predict import Answer, unreadable
from diffcern.tasks import MAP_TASKS
from diffcern.tasks.base import resized


def check_unused(folder: Path) -> None:
    """Raises DiffcernError where maps would be written into a folder that holds something already."""
    if folder.is_dir() and any(folder.iterdir()):
        raise DiffcernError(
            f"the maps would be written into {folder}, which holds files: give another --out, or move them away"
        )


def adapt_maps(
    predictor: Predictor, given: Iterator[Answer | UnreadableImage], names: Mapping[str, PurePosixPath], folder: Path
) -> Iterator[dict[str, Any]]:
    """Rows with how much of the answer changed, what it cost, and the files in `folder`; unreadable images too.

    names: of the files, by id. NAME.png is the answer: class indices with a palette, or 16-bit depth in millimetres
    (relative inverse depth: from its least to its greatest). NAME-overlay.png or NAME-preview.png shows it.
    """
    pictures = picture_names(names, "overlay" if predictor.kind.classes else "preview")
    for answer in given:
        if isinstance(answer, UnreadableImage):
            yield unreadable(answer)
            continue
        sample, output = answer.sample, answer.prediction.output[answer.row]
        _write(folder / names[sample.id], folder / pictures[sample.id], output, sample.image, predictor)
        yield {
            "id": sample.id,
            "file": str(names[sample.id]),
            "picture": pictures[sample.id].name,
            "changed": round(MAP_TASKS[predictor.task].change(answer.before, output), 6),
            **answer.cost,
        }


def picture_names(names: Mapping[str, PurePosixPath], what: str) -> dict[str, PurePosixPath]:
    """Beside each map "NAME.png" its picture "NAME-WHAT.png"; where a map or another picture is called so already, with
    one more "-WHAT"."""
    taken, pictures = set(names.values()), {}
    for id, name in names.items():
        picture = name.with_name(f"{name.stem}-{what}.png")
        while picture in taken:
            picture = picture.with_name(f"{picture.stem}-{what}.png")
        taken.add(picture)
        pictures[id] = picture
    return pictures


def _write(path: Path, picture: Path, output: Tensor, image: Tensor, predictor: Predictor) -> None:
    """Both files, the picture first: where the answer lies, all lies."""
    shape = (image.shape[-2], image.shape[-1])
    maps = resized((output if output.ndim == 3 else output[None])[None].float().cpu(), shape)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    if predictor.kind.classes:
        classes = maps.argmax(0)
        data = encode_mask(classes)
        write_whole(picture, encode_png((image + coloured_mask(classes)) / 2))
    else:
        depth = maps[0] if predictor.metric else DEEPEST * scaled(maps[0])
        data = encode_depth(depth)
        write_whole(picture, encode_png(coloured_depth(maps[0], predictor.metric)))
    write_whole(path, data)


def coloured_mask(classes: Tensor) -> Tensor:
    """Class indices `[H, W]` as colours `[3, H, W]` in [0, 1], those of `palette`."""
    return (torch.tensor(palette()).float() / 255)[classes].permute(2, 0, 1)


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
