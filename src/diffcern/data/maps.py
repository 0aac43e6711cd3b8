"""What a pixel shows, from files: class masks and depth maps, lossless and never resized."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffcern.data.base import VOID
from diffcern.data.images import UnreadableImage, open_image
from diffcern.errors import UsageError
from diffcern.kinds import DEPTH, SEGMENTATION

LOSSY = ("JPEG", "MPO", "AVIF", "HEIF", "JPEG2000")
DEEPEST = 65.535  # metres that they can hold
Names = Sequence[str] | None


@dataclass(frozen=True)
class MapColumns:
    """Where a table keeps what the pixels of its images show.

    mask, depth: the columns, None where there is none. indices: names of the classes in the masks, in order, "void"
    among them; empty where they are not known.
    """

    mask: str | None = None
    depth: str | None = None
    indices: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        return [column for column in (self.mask, self.depth) if column]

    def decode(self, stored: Callable[[str], bytes | None], name: str) -> tuple[Tensor | None, Tensor | None]:
        """The mask and the depth map of a sample, None where it has none; stored: its bytes in a column, if any.

        Raises as `decode_mask` and `decode_depth`.
        """
        mask = stored(self.mask) if self.mask else None
        depth = stored(self.depth) if self.depth else None
        return (
            None if mask is None else decode_mask(mask, name, self.indices),
            None if depth is None else decode_depth(depth, name),
        )


def map_columns(encoded: Collection[str]) -> MapColumns:
    """The first of the usual names, among the columns that hold encoded images."""
    mask, depth = (next((c for c in usual if c in encoded), None) for usual in (SEGMENTATION.columns, DEPTH.columns))
    return MapColumns(mask, depth)


def whose_names(labelled: bool, masked: bool, class_names: Names, mask_names: Names) -> tuple[Names, Names]:
    """What names the classes of a table's images and those of its masks: class_names are the masks' where there are
    masks without labels, and nobody has named their classes."""
    if masked and not labelled and mask_names is None:
        return None, class_names
    return class_names, mask_names


def decode_mask(data: bytes, name: str, names: Sequence[str] = ()) -> Tensor:
    """`[H, W]` int64 from an image of class indices: grey, with a palette, or grey in three equal channels.

    names: of the indices; one called "void" becomes `VOID`, and those after it count one less, as in `known`. Raises
    UnreadableImage, which names the sample, for data that are no such image.
    """
    indices = _decode(data, name, "a mask", ("1", "L", "P", "I;16", "I"), grey=True).long()
    for void in [index for index, known in enumerate(names) if known == "void"][::-1]:
        later = (indices > void) & (indices != VOID)
        indices = torch.where(indices == void, VOID, indices - later.long())
    return indices


def known(names: Sequence[str]) -> tuple[str, ...]:
    """The names of classes, without "void"."""
    return tuple(name for name in names if name != "void")


def decode_depth(data: bytes, name: str) -> Tensor:
    """`[H, W]` float32 metres from an image of millimetres, 0 where unknown. Raises as `decode_mask`."""
    depth = _decode(data, name, "a depth map", ("I;16", "I"))
    if bool((depth < 0).any()):
        raise UnreadableImage(name, "a depth map with negative values: store millimetres, and 0 where unknown")
    return depth.float() / 1000


def foreign(mask: Tensor, count: int) -> Tensor:
    """The values in a mask that are none of its `count` classes and not void."""
    return mask[(mask != VOID) & ((mask < 0) | (mask >= count))]


def check_not_binary(name: str, values: Collection[int]) -> None:
    """Raises UsageError for masks that hold nothing but 0 and 255: pictures in black and white.

    values: all that were seen; name: of the data.
    """
    if set(values) == {0, VOID}:
        raise UsageError(
            f"the masks of {name} hold 0 and {VOID} alone, and {VOID} is void, so that there would be one class: where "
            "white is a class, store it as 1"
        )


def encode_mask(mask: Tensor) -> bytes:
    """PNG of class indices `[H, W]` below 256 with the colours of `palette`."""
    image = Image.fromarray(mask.cpu().to(torch.uint8).numpy(), mode="P")
    image.putpalette([channel for colour in palette() for channel in colour])
    return _png(image)


def palette() -> list[tuple[int, int, int]]:
    """256 colours: hues a golden section of the circle apart, and white for what is void."""
    colours = []
    for k in range(VOID):
        hue, value = (0.58 + 0.618034 * k) % 1, (0.95, 0.75, 0.55)[k % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, (0.45, 0.7)[k % 2], value)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return [*colours, (255, 255, 255)]


def encode_depth(depth: Tensor) -> bytes:
    """16-bit PNG of depth `[H, W]` in metres, as millimetres; what does not fit, beyond `DEEPEST`, is cut off."""
    millimetres = (depth.cpu().double().clamp(0, DEEPEST) * 1000).round()
    return _png(Image.fromarray(millimetres.numpy().astype(np.uint16)))


def _decode(data: bytes, name: str, what: str, modes: tuple[str, ...], grey: bool = False) -> Tensor:
    """grey: also channels that are equal, as some programs write them."""
    try:
        with open_image(io.BytesIO(data), name) as image:
            if image.format in LOSSY or (image.format == "WEBP" and b"VP8L" not in data[:4096]):
                kind = image.format or "JPEG"
                raise UnreadableImage(name, f"{what} stored as {kind}, whose losses make other values: store it as PNG")
            if "L" not in modes and image.mode == "L":
                raise UnreadableImage(name, f"{what} of 8 bits, which reach to 0.255 m: store millimetres in 16 bits")
            if grey and image.mode in ("LA", "RGB", "RGBA"):
                return _equal_channels(np.asarray(image), name, what)
            if image.mode not in modes:
                raise UnreadableImage(name, f"{what} is an image of mode {' or '.join(modes)}, not {image.mode}")
            return torch.from_numpy(np.asarray(image).astype(np.int32))
    except UnreadableImage as error:
        reason = error.reason if error.reason.startswith(what) else f"{what} that cannot be read ({error.reason})"
        raise UnreadableImage(name, reason) from error
    except Exception as error:  # Pillow's parsers raise whatever a damaged header makes them
        raise UnreadableImage(name, f"{what} that cannot be read ({error})") from error


def _equal_channels(pixels: np.ndarray, name: str, what: str) -> Tensor:
    """One of an image's channels of colour, which hold the same. Raises UnreadableImage where they do not."""
    colours = pixels[..., : 3 if pixels.shape[-1] >= 3 else 1]
    if (colours != colours[..., :1]).any():
        raise UnreadableImage(
            name,
            f"{what} in colours, which are no class indices: store the index of each pixel's class, as VOC's "
            "PNGs with a palette do",
        )
    return torch.from_numpy(colours[..., 0].astype(np.int32))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
