"""Image files: decoded to what Pillow itself makes of them, or refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from diffcern.data.images import FORMATS, MAX_PIXELS, check_pixels, decode

from .damage import damaged_bytes
from .outcomes import Case

SIDES = (None, None, 5, 64, 4096)


class Images:
    """Small pictures in every format and mode; `max_side` now and then."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        colours = rng.integers(0, 256, (11, 13, 3), dtype=np.uint8)
        grey, alpha = colours[..., 0], rng.integers(0, 256, (11, 13), dtype=np.uint8)
        rgb = Image.fromarray(colours)
        exif = Image.Exif()
        exif[0x0112] = 6
        paletted = rgb.quantize(16)
        self.files: dict[str, bytes] = {}
        for name, image, options in [
            ("PNG", rgb, {}),
            ("PNG", Image.fromarray(grey), {}),
            ("PNG", Image.fromarray(grey > 99), {}),
            ("PNG", Image.fromarray(grey.astype(np.uint16) * 257), {}),
            ("PNG", Image.fromarray(np.dstack([colours, alpha])), {}),
            ("PNG", Image.fromarray(np.dstack([grey, alpha]), "LA"), {}),
            ("PNG", paletted, {"transparency": 1}),
            ("PNG", rgb, {"exif": exif}),
            ("JPEG", rgb, {}),
            ("JPEG", rgb, {"progressive": True, "optimize": True}),
            ("JPEG", Image.fromarray(grey), {}),
            ("JPEG", rgb.convert("CMYK"), {}),
            ("JPEG", rgb, {"exif": exif}),
            ("WEBP", rgb, {"lossless": True}),
            ("WEBP", rgb, {"quality": 50}),
            ("GIF", paletted, {"save_all": True, "append_images": [paletted.rotate(90)]}),
            ("BMP", rgb, {}),
            ("TIFF", rgb, {}),
            ("TIFF", rgb, {"compression": "tiff_lzw"}),
            ("TIFF", rgb, {"compression": "tiff_adobe_deflate"}),
            ("TIFF", Image.fromarray(grey.astype(np.float32)), {}),
            ("PPM", rgb, {}),
        ]:
            buffer = io.BytesIO()
            image.save(buffer, format=name, **options)
            self.files[f"{name} {image.mode} {' '.join(options)}".strip()] = buffer.getvalue()

    def case(self, rng: Random) -> Case:
        name = rng.choice(list(self.files))
        data, side = self.files[name], rng.choice(SIDES)
        way = rng.random()
        if way < 0.05:
            return Case(f"{name}, whole", lambda: _same(data, side), whole=name != "TIFF F")
        if way < 0.1:
            what, data = "declared", declared(rng)
        elif way < 0.15:
            other = self.files[rng.choice(list(self.files))]
            what, data = "two halves", data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]
        else:
            what, data = damaged_bytes(data, rng)
        return Case(f"{name}, {what}, max_side {side}", lambda: _same(data, side))


def declared(rng: Random) -> bytes:
    """A PNG without pixels that declares some; harmless, as long as nobody believes it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    width, height = (rng.choice([0, 1, 100, 4000, 20_000, 65_535, 2**31 - 1, 2**32 - 1]) for _ in range(2))
    colour, bits = rng.choice([(0, 1), (0, 8), (0, 16), (2, 8), (2, 16), (3, 8), (4, 8), (6, 8), (6, 16), (7, 3)])
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, rng.choice([0, 1]))
    body = chunk(b"IDAT", rng.choice([b"", zlib.compress(bytes(1000)), b"x" * 100]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def _same(data: bytes, side: int | None) -> bool:
    """Whether the pixels are in order, and those of Pillow where it can be asked."""
    image = decode(data, "input", max_side=side)
    check_pixels(image, "input")
    if image.dtype != torch.float32 or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        return False
    if side is not None and max(image.shape) > max(side, 3):
        return False
    try:
        stored = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:  # Pillow's own limit is lower
        return True
    with stored:
        if stored.width * stored.height > MAX_PIXELS // 100:
            return True  # decoded once is enough
        stored.load()  # what Pillow cannot decode, nobody can
        plain = stored.mode in ("RGB", "L") and not stored.has_transparency_data
        if not plain or side is not None or stored.getexif().get(0x0112, 1) != 1:
            return True
        pixels = np.asarray(stored.convert("RGB")).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return torch.equal(image, torch.from_numpy(pixels))
