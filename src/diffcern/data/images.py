"""From image files and bytes to float tensors and back: an odd file decodes correctly, or says why it cannot.

Knows nothing about data sets, labels or models. Colour profiles are not applied: pixels are taken as stored.
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from diffcern.data.formats import FORMATS, pillow_formats, refusal, without_remarks
from diffcern.data.pixels import fit, orientation_of, shrink, upright
from diffcern.errors import DiffcernError

MAX_PIXELS = 64_000_000  # at full size: 768 MB as a float32 tensor
MAX_PIXELS_REDUCED = 1_000_000_000  # with max_side: Pillow itself needs up to 4 bytes per stored pixel
# With max_side, of any file; beyond it a file is believed where it holds a byte for every so many of its pixels.
# JPEGs of one colour hold one for 64, photographs one for 1 to 40; a PNG can declare 1,032 bytes with one of its own.
MAX_STORED_BYTES = 400_000_000  # of Pillow's copy: 400 million grey pixels, 100 million coloured ones
PIXELS_PER_BYTE = 100

_PIXEL_LIMIT = threading.Lock()


class UnreadableImage(DiffcernError):
    """An image that cannot be decoded; `name` says which one, `reason` why.

    A loader's worker process hands it on as its text alone.
    """

    def __init__(self, name: str, reason: str = "") -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read image {self.name!r}: {self.reason}" if self.reason else self.name


def decode(source: Path | bytes, name: str, max_side: int | None = None, border: int = 0) -> Tensor:
    """Decode an image to `[3, H, W]`, float32 in [0, 1], upright.

    An 8-bit value k becomes exactly k/255, a 16-bit grey value k/65535. Grey is repeated to three channels,
    transparency is composited over white, EXIF rotation is applied, of an animation the first frame is taken.

    max_side: no side of the result is longer, in pixels; a larger image is averaged down while it is loaded,
    in bands, so that memory stays near that of Pillow's own copy (up to 4 bytes per stored pixel). Without
    max_side, an image of more than `MAX_PIXELS` is refused, and with it one whose result would have more; above
    `MAX_PIXELS_REDUCED`, always. A small file that declares a picture of more than `MAX_STORED_BYTES` (less than a byte
    for every `PIXELS_PER_BYTE` of its pixels) is taken for a decompression bomb before anything is decoded.

    border: as many stored pixels are cut off on every side, before anything is averaged into them.

    Raises `UnreadableImage`, which names the image and the reason; `DiffcernError` for a max_side below 1.
    """
    if max_side is not None and max_side < 1:
        raise DiffcernError(f"max_side must be at least 1, not {max_side}.")
    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as stream:
            try:
                return _decode(stream, name, max_side, border)
            except UnreadableImage as error:
                if "MAX_TEXT" not in error.reason:  # Pillow's limits on what is said beside the pixels
                    raise
                stream.seek(0)
                return _decode(io.BytesIO(without_remarks(stream.read())), name, max_side, border)
    except UnreadableImage:
        raise
    except FileNotFoundError as error:
        raise UnreadableImage(name, "no such file") from error
    except PermissionError as error:
        raise UnreadableImage(name, "permission denied") from error
    except OSError as error:  # a directory, a failing disk
        raise UnreadableImage(name, error.strerror or str(error)) from error


def _decode(stream: IO[bytes], name: str, max_side: int | None, border: int) -> Tensor:
    with open_image(stream, name, max_side) as image:
        file_format = image.format
        try:
            if max_side is not None and not border:
                # JPEG only: decodes at 1/2, 1/4 or 1/8, yet twice as large as needed to lose no detail
                image.draft(None, fit(image.size, 2 * max_side))
            _load(image)
        except Exception as error:
            raise UnreadableImage(name, f"truncated or damaged ({_describe(error)})") from error
        orientation = orientation_of(image)
        try:
            return upright(shrink(_inside(image, border, name), file_format, max_side), orientation).contiguous()
        except UnreadableImage:
            raise
        except (ValueError, AssertionError, OSError) as error:  # a colour space that Pillow cannot convert, no palette
            raise UnreadableImage(name, f"pixels that cannot be converted to RGB ({_describe(error)})") from error


def open_image(stream: IO[bytes], name: str, max_side: int | None = None) -> Image.Image:
    """Opens an image of a known format, without decoding it yet. Raises UnreadableImage, also for one that is too large
    to be decoded, see `decode`."""
    if not stream.read(1):
        raise UnreadableImage(name, "the file is empty")
    length = stream.seek(0, io.SEEK_END)
    if reason := refusal(name, stream):
        raise UnreadableImage(name, reason)
    stream.seek(0)
    try:
        image = _open(stream, name)
    except UnidentifiedImageError as error:
        raise UnreadableImage(name, f"not an image of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:  # Pillow's parsers raise whatever a damaged header makes them
        raise UnreadableImage(name, f"damaged header ({_describe(error)})") from error
    try:
        _refuse_if_too_large(image, length, name, max_side)
    except UnreadableImage:
        image.close()
        raise
    return image


def _open(stream: IO[bytes], name: str) -> Image.Image:
    """Opens, the header only."""
    with _unlimited():
        return Image.open(stream, formats=pillow_formats(name))


def _load(image: Image.Image) -> None:
    """Decodes. Pillow holds a TIFF's tiles against its limit once more; other formats are decoded side by side."""
    with _unlimited() if image.format == "TIFF" else contextlib.nullcontext():
        image.load()


@contextlib.contextmanager
def _unlimited() -> Iterator[None]:
    """Without Pillow's pixel limit, which is global and lower than ours (`_refuse_if_too_large`)."""
    with _PIXEL_LIMIT, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__


def _refuse_if_too_large(image: Image.Image, length: int, name: str, max_side: int | None) -> None:
    """length: of the file in bytes."""
    width, height = image.size
    pixels, shape = width * height, f"{width} x {height} pixels"
    if pixels > MAX_PIXELS_REDUCED:
        raise UnreadableImage(name, f"{shape}: above {MAX_PIXELS_REDUCED:,}, taken for a decompression bomb")
    if max_side is None:
        if pixels > MAX_PIXELS:
            what = f"{shape}: above the {MAX_PIXELS:,} that are decoded at full size"
            raise UnreadableImage(name, f"{what}; give max_side (for example 1024) to shrink it while loading")
        return
    rows, columns = fit(image.size, min(max_side, max(image.size)))
    if rows * columns > MAX_PIXELS:
        what = f"{shape}, of which max_side {max_side} leaves more than the {MAX_PIXELS:,} that are decoded"
        raise UnreadableImage(name, f"{what}; give a smaller max_side (for example 4096)")
    if pixels * _stored_bytes(image) > MAX_STORED_BYTES and length * PIXELS_PER_BYTE < pixels:
        raise UnreadableImage(
            name,
            f"{shape} in a file of {length:,} bytes: above {MAX_STORED_BYTES // 1_000_000} MB once decoded, from less "
            f"than a byte for {PIXELS_PER_BYTE} pixels, which is taken for a decompression bomb; if it is none, save "
            "it with fewer pixels or in grey",
        )


def _stored_bytes(image: Image.Image) -> int:
    """Of a pixel, in Pillow's copy or on its way to RGB."""
    if image.mode in ("1", "L") and not image.has_transparency_data:
        return 1
    return 2 if image.mode.startswith("I;16") else 4


def _inside(image: Image.Image, border: int, name: str) -> Image.Image:
    """The image without `border` pixels on every side; it no longer knows its file's format."""
    width, height = image.size
    if min(width, height) <= 2 * border:
        raise UnreadableImage(name, f"{width} x {height} pixels leave nothing inside a border of {border}")
    return image.crop((border, border, width - border, height - border)) if border else image


def check_pixels(image: Tensor, name: str) -> None:
    """Raise `DiffcernError`, naming the sample, unless all pixels are finite and in [0, 1]."""
    if not torch.isfinite(image).all():
        raise DiffcernError(f"image {name!r} holds NaN or infinite pixels: leave it out, or make it anew.")
    if image.numel() and (image.min() < 0 or image.max() > 1):
        low, high = image.min().item(), image.max().item()
        raise DiffcernError(f"image {name!r} has pixels in [{low:.3g}, {high:.3g}]; they must lie in [0, 1].")


def encode_png(image: Tensor) -> bytes:
    """Lossless PNG of `[3, H, W]` in [0, 1], rounded to the nearest k/255; `DiffcernError` outside it."""
    check_pixels(image, "to be encoded")
    array = image.detach().cpu().float().mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()
