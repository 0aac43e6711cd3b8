"""Decoding odd files: the expected pixels are written down by hand, never computed by the code under test."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import re
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from diffcern.data import images
from diffcern.data import pixels as module
from diffcern.data.formats import is_image
from diffcern.data.images import UnreadableImage, check_pixels, decode, encode_png
from diffcern.data.maps import decode_mask
from diffcern.errors import DiffcernError

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4  # no symmetry, all values different


def saved(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def expected(array: np.ndarray, scale: float = 255) -> Tensor:
    """`[3, H, W]` of an `[H, W, 3]` or `[H, W]` array."""
    array = array if array.ndim == 3 else np.stack([array] * 3, axis=-1)
    return torch.tensor(array.transpose(2, 0, 1).astype(np.float32) / np.float32(scale))


def exactly(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype == torch.float32 and a.shape == b.shape and bool((a == b).all())


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_rgb_is_exactly_k_over_255(file_format: str) -> None:
    image = decode(saved(Image.fromarray(RGB), file_format), "a")
    assert exactly(image, expected(RGB))
    assert image.is_contiguous()


def test_lossless_webp() -> None:
    assert exactly(decode(saved(Image.fromarray(RGB), "WEBP", lossless=True), "a"), expected(RGB))


def test_every_8_bit_value_survives_decode_and_encode() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = decode(saved(Image.fromarray(ramp)), "ramp")
    assert exactly(image, expected(ramp))
    assert exactly(decode(encode_png(image), "again"), image)


def test_jpeg_is_close() -> None:
    flat = np.full((16, 16, 3), (200, 100, 50), dtype=np.uint8)
    image = decode(saved(Image.fromarray(flat), "JPEG", quality=95), "a")
    assert (image - expected(flat)).abs().max() < 3 / 255  # a flat colour loses only the rounding of YCbCr


def test_one_bit_and_single_pixel() -> None:
    bits = np.array([[True, False], [False, False]])
    assert exactly(decode(saved(Image.fromarray(bits)), "bits"), expected(bits.astype(np.uint8) * 255))
    assert exactly(decode(saved(Image.new("RGB", (1, 1), (1, 2, 3))), "one"), expected(np.uint8([[[1, 2, 3]]])))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(file_format: str) -> None:
    grey = np.array([[0, 255, 256], [30000, 65534, 65535]], dtype=np.uint16)
    assert exactly(decode(saved(Image.fromarray(grey), file_format), "grey"), expected(grey, 65535))


def test_16_bit_grey_shrinks_too() -> None:
    grey = np.full((8, 8), 30000, dtype=np.uint16)
    grey[:, 4:] = 10000
    image = decode(saved(Image.fromarray(grey)), "grey", max_side=2)
    torch.testing.assert_close(image, expected(np.array([[30000, 10000]] * 2), 65535))


def test_transparency_is_composited_over_white() -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    over_white = np.array([[[255, 0, 0], [255, 255, 255], [204, 204, 204]]])  # 51/255 = 0.2 of black
    torch.testing.assert_close(decode(saved(Image.fromarray(rgba)), "rgba"), expected(over_white))
    grey = np.array([[[100, 255], [100, 0]]], dtype=np.uint8)
    torch.testing.assert_close(decode(saved(Image.fromarray(grey, "LA")), "la"), expected(np.array([[100, 255]])))


def test_palette_with_and_without_transparency() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 0]], dtype=np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    colours = np.array([[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [10, 20, 30]]])
    assert exactly(decode(saved(image), "p"), expected(colours))
    colours[0, 1] = 255
    torch.testing.assert_close(decode(saved(image, transparency=1), "pt"), expected(colours))


def test_rgb_png_with_a_transparent_colour() -> None:
    pixels = np.array([[[10, 20, 30], [40, 50, 60]]], dtype=np.uint8)
    data = saved(Image.fromarray(pixels), transparency=(40, 50, 60))
    torch.testing.assert_close(decode(data, "trns"), expected(np.array([[[10, 20, 30], [255, 255, 255]]])))


def test_cmyk() -> None:
    cmyk = np.array([[[0, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255]]], dtype=np.uint8)  # white, red, black
    image = decode(saved(Image.fromarray(cmyk, "CMYK"), "TIFF"), "cmyk")
    assert exactly(image, expected(np.array([[[255, 255, 255], [255, 0, 0], [0, 0, 0]]])))


# what a camera stores so that, after the turn that the tag asks for, RGB is seen (EXIF 2.3, tag 274)
STORED = {
    1: RGB,
    2: RGB[:, ::-1],
    3: RGB[::-1, ::-1],
    4: RGB[::-1],
    5: RGB.transpose(1, 0, 2),
    6: np.rot90(RGB, 1),
    7: RGB[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(RGB, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_exif_orientation_is_applied_once(orientation: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    assert exactly(decode(saved(stored, file_format, exif=exif), "turned"), expected(RGB))


def test_exif_orientation_of_a_shrunken_jpeg() -> None:
    """A wide picture with a bright left half, stored a quarter turn off, comes back as it was."""
    upright = np.zeros((160, 320, 3), dtype=np.uint8)
    upright[:, :160] = 250
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright, 1)))
    image = decode(saved(stored, "JPEG", exif=exif), "turned", max_side=16)
    assert image.shape == (3, 8, 16)
    assert image[:, :, :7].min() > 0.9
    assert image[:, :, 9:].max() < 0.1


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (3, 2), colour) for colour in [(255, 0, 0), (0, 255, 0)]]
    for file_format, options in [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})]:
        data = saved(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        assert exactly(decode(data, file_format), expected(np.full((2, 3, 3), (255, 0, 0))))


def test_multi_picture_jpeg_of_a_camera() -> None:
    left, right = (Image.new("RGB", (16, 16), colour) for colour in [(0, 0, 250), (250, 0, 0)])
    image = decode(saved(left, "MPO", save_all=True, append_images=[right]), "mpo")
    assert (image - torch.tensor([0, 0, 250 / 255])[:, None, None]).abs().max() < 3 / 255


def test_max_side_averages_and_leaves_small_images_alone() -> None:
    checks = np.zeros((6, 12), dtype=np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 255  # every 2x2 block averages to one half
    data = saved(Image.fromarray(checks))
    image = decode(data, "checks", max_side=6)
    assert image.shape == (3, 3, 6)
    torch.testing.assert_close(image, torch.full_like(image, 0.5))
    assert exactly(decode(data, "checks", max_side=12), expected(checks))
    assert decode(data, "checks", max_side=5).shape == (3, 2, 5)
    assert decode(data, "checks", max_side=1).shape == (3, 1, 1)
    with pytest.raises(DiffcernError, match="max_side must be at least 1"):
        decode(data, "checks", max_side=0)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_border_is_cut_off_before_anything_is_averaged(file_format: str) -> None:
    inside = np.full((36, 68, 3), 100, dtype=np.uint8)
    framed = np.pad(inside, ((14, 14), (14, 14), (0, 0)), constant_values=255)  # JPEG: the frame rings 6 pixels inwards
    data = saved(Image.fromarray(framed), file_format)
    image = decode(data, "framed", border=20)
    assert image.shape == (3, 24, 56)
    assert (image - 100 / 255).abs().max() <= 1.01 / 255
    assert decode(data, "framed", max_side=7, border=20).shape == (3, 3, 7)
    assert (decode(data, "framed", max_side=7, border=20) - 100 / 255).abs().max() <= 1.01 / 255
    with pytest.raises(UnreadableImage, match="96 x 64 pixels leave nothing inside a border of 32"):
        decode(data, "framed", border=32)


def test_border_of_sixteen_bits_and_of_a_turned_image() -> None:
    grey = np.zeros((5, 6), dtype=np.uint16)
    grey[1:-1, 1:-1] = 60_000
    assert exactly(decode(saved(Image.fromarray(grey)), "16", border=1), torch.full((3, 3, 4), 60_000 / 65535))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(RGB, 1)))
    whole = decode(saved(stored, exif=exif), "turned")
    assert exactly(decode(saved(stored, exif=exif), "turned", border=1), whole[:, 1:-1, 1:-1])


def test_bands_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (61, 47, 4), dtype=np.uint8)
    data = saved(Image.fromarray(noise))
    whole = decode(data, "noise", max_side=9)
    monkeypatch.setattr(module, "BAND_PIXELS", 1)
    assert exactly(decode(data, "noise", max_side=9), whole)


def png_header(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def one_bit_png(side: int) -> bytes:
    """A square with a white left half, of 60 kB where side is 20,000."""
    row = b"\0" + b"\xff" * (side // 16) + b"\0" * (side // 16)
    packed = zlib.compress(row * side, 1)
    return b"\x89PNG\r\n\x1a\n" + png_header(side, side) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def peak_megabytes() -> int:
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024


def test_20000_by_20000_in_bounded_memory() -> None:
    data = one_bit_png(20_000)
    with pytest.raises(UnreadableImage, match=r"20000 x 20000 pixels.*give max_side"):
        decode(data, "huge")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = peak_megabytes()
    except (OSError, TypeError):
        before = None  # not Linux: the pixels are still checked
    image = decode(data, "huge", max_side=100)
    if before is not None:
        # Pillow keeps 400 MB (a byte per pixel); as float32 the picture would need another 1,600
        assert peak_megabytes() - before < 700
    assert image.shape == (3, 100, 100)
    assert exactly(image[:, :, :50], torch.ones(3, 100, 50))
    assert exactly(image[:, :, 50:], torch.zeros(3, 100, 50))


def test_decompression_bomb_is_refused_before_decoding() -> None:
    bomb = b"\x89PNG\r\n\x1a\n" + png_header(100_000, 100_000) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(UnreadableImage, match="decompression bomb"):
        decode(bomb, "bomb", max_side=10)


def declared(side: int, colour: int, bits: int = 8, data: bytes = b"") -> bytes:
    """A PNG that says it is a square of that side; colour: its type."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("side", "colour", "bits"), [(10_100, 2, 8), (10_100, 2, 16), (10_100, 6, 8), (10_100, 4, 8), (20_100, 0, 8)]
)
def test_a_small_file_does_not_unpack_into_hundreds_of_megapixels(side: int, colour: int, bits: int) -> None:
    started = time.perf_counter()
    bomb = declared(side, colour, bits, b"x" * 1_000_000)
    message = rf"{side} x {side} pixels in a file of 1,000,057 bytes: .*decompression bomb.*fewer pixels or in grey"
    with pytest.raises(UnreadableImage, match=message):
        decode(bomb, "bomb", max_side=64)
    with pytest.raises(UnreadableImage, match="give max_side"):
        decode(bomb, "bomb")
    assert time.perf_counter() - started < 1  # nothing is decoded
    for fewer in (9_900, 19_900) if colour == 0 else (9_900,):
        with pytest.raises(UnreadableImage, match=r"truncated|damaged"):  # is decoded, and found to be none
            decode(declared(fewer, colour, bits), "believed", max_side=64)


def test_large_pictures_are_still_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one colour up to what any file may unpack into; beyond it those with a byte for 100 pixels, as JPEGs have."""
    monkeypatch.setattr(images, "MAX_STORED_BYTES", images.MAX_STORED_BYTES // 100)
    flat = Image.new("RGB", (1_000, 1_000), (200, 100, 50))
    assert decode(saved(flat), "flat", max_side=64).shape == (3, 64, 64)
    with pytest.raises(UnreadableImage, match="1001 x 1000 pixels in a file"):
        decode(saved(flat.resize((1_001, 1_000))), "flat", max_side=64)
    assert decode(saved(flat.convert("L").resize((2_000, 2_000))), "grey", max_side=64).shape == (3, 64, 64)
    image = decode(saved(flat.resize((3_000, 2_500)), "JPEG", quality=50), "jpeg", max_side=100)
    assert image.shape == (3, 83, 100)
    assert (image - torch.tensor([200, 100, 50])[:, None, None] / 255).abs().max() < 4 / 255


def test_max_side_leaves_no_more_than_what_is_decoded_at_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    data = saved(Image.new("L", (400, 200), 9))
    with pytest.raises(UnreadableImage, match=r"max_side 300 leaves more than the 10,000.*give a smaller max_side"):
        decode(data, "a", max_side=300)
    with pytest.raises(UnreadableImage, match="400 x 200 pixels"):
        decode(data, "a", max_side=4096)
    assert decode(data, "a", max_side=100).shape == (3, 50, 100)
    assert decode(saved(Image.new("L", (1_000, 10), 9)), "a", max_side=900).shape == (3, 9, 900)


def test_a_palette_that_is_not_there() -> None:
    with pytest.raises(UnreadableImage, match=r"pixels that cannot be converted to RGB .AssertionError"):
        decode(declared(8, 3, 8, zlib.compress(bytes(9 * 8))), "no palette")


def test_masks_keep_to_the_same_limits() -> None:
    with pytest.raises(UnreadableImage, match=r"a mask that cannot be read .10000 x 10000 pixels: above the 64,"):
        decode_mask(one_bit_png(10_000), "mask")
    with pytest.raises(UnreadableImage, match=r"a mask that cannot be read .not an image of a known format"):
        decode_mask(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "mask")  # which Pillow hands to Ghostscript


def test_pillows_own_limit_is_left_as_it_was() -> None:
    before = Image.MAX_IMAGE_PIXELS
    decode(saved(Image.fromarray(RGB)), "a")
    assert before == Image.MAX_IMAGE_PIXELS
    assert before is not None


def unreadable(source: Path | bytes) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode(source, "holiday/7.jpg")
    assert caught.value.name == "holiday/7.jpg"
    assert "'holiday/7.jpg'" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # from a worker process
    return caught.value.reason


def test_each_failure_names_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert "empty" in unreadable(b"")
    assert "not an image" in unreadable(b"dear diary, this is no picture")
    assert "no such file" in unreadable(tmp_path / "none.jpg")
    assert "directory" in unreadable(tmp_path)
    for file_format in ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"]:
        data = saved(Image.fromarray(noise), file_format)
        reason = unreadable(data[: len(data) // 2])
        assert re.search("truncated|damaged|not an image", reason), (file_format, reason)
    assert "truncated" in unreadable(saved(Image.fromarray(noise), "JPEG")[:-500])
    assert "no fixed range" in unreadable(saved(Image.fromarray(noise[..., 0].astype(np.float32)), "TIFF"))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")  # chmod does not stop root, who may run this

    monkeypatch.setattr(Path, "open", refuse)
    assert "permission" in unreadable(tmp_path / "locked.jpg")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_flipped_bytes_never_raise_anything_else() -> None:
    """Pillow's parsers raise many types on damaged files; the caller sees UnreadableImage, or pixels."""
    generator = np.random.default_rng(0)
    for file_format in ["JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP"]:
        good = saved(Image.fromarray(RGB), file_format)
        for _ in range(60):
            data = bytearray(good)
            for place in generator.integers(0, len(data), 4):
                data[place] = generator.integers(256)
            with contextlib.suppress(UnreadableImage):
                check_pixels(decode(bytes(data), "damaged", max_side=64), "damaged")


def test_is_image_by_suffix() -> None:
    assert all(is_image(Path(name)) for name in ["a.jpg", "b.JPEG", "c/d.Png", "e.tif", "f.webp"])
    assert not any(is_image(Path(name)) for name in ["a.txt", "jpg", "b.jpg.part", ".jpg", "c.pdf"])


def test_check_pixels_names_the_sample() -> None:
    good = torch.rand(3, 4, 4)
    check_pixels(good, "s1")
    for value, words in [(float("nan"), "NaN"), (float("inf"), "infinite"), (-0.01, "-0.01"), (255.0, "255")]:
        bad = good.clone()
        bad[1, 2, 3] = value
        with pytest.raises(DiffcernError, match=f"'s1'.*{words}"):
            check_pixels(bad, "s1")


def test_encode_png_refuses_what_it_would_clip() -> None:
    with pytest.raises(DiffcernError, match="must lie in"):
        encode_png(torch.full((3, 2, 2), 1.5))


def _remarked(**chunks: bytes) -> bytes:
    """A PNG with much said beside its pixels: as image generators keep their workflows, and scanners their profiles."""
    info, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    if "text" in chunks:
        info.add_text("workflow", "x" * 3_000_000, zip=True)
    if "itxt" in chunks:
        info.add_itxt("workflow", "é" * 3_000_000, zip=True)
    if "many" in chunks:
        for number in range(100):
            info.add_text(f"key {number}", os.urandom(400).hex() * 1000, zip=True)
    profile = {"icc_profile": os.urandom(3_000_000)} if "profile" in chunks else {}
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(
        buffer, "PNG", pnginfo=info, exif=exif, **profile
    )
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["text", "itxt", "many", "profile", "none"])
def test_metadata_of_any_size_makes_no_image_unreadable(kind: str) -> None:
    image = decode(_remarked(**{kind: b""}), "a.png")
    assert torch.equal(image, decode(_remarked(), "a.png"))
    assert torch.equal(image.mul(255).round()[:, 0, 3], torch.tensor([0.0, 1.0, 2.0]))  # turned upright all the same
    with pytest.raises(UnreadableImage):
        decode(_remarked(**{kind: b""})[:-40], "a.png")


def test_a_transparent_grey_of_16_bits_is_white() -> None:
    pixels = Image.fromarray(np.array([[0, 1000], [30000, 65535]], np.uint16))
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG", transparency=1000)
    assert Image.open(io.BytesIO(buffer.getvalue())).info.get("transparency") == 1000
    grey = decode(buffer.getvalue(), "grey.png")
    assert torch.allclose(grey[0], torch.tensor([[0.0, 1.0], [30000 / 65535, 1.0]]))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
def test_pillows_own_limit_is_lifted_while_a_tiff_is_decoded_too(monkeypatch, compression) -> None:
    buffer = io.BytesIO()
    Image.new("L", (64, 64), 100).save(buffer, "TIFF", compression=compression)
    monkeypatch.setattr(module, "BAND_PIXELS", 1)  # older versions of Pillow hold what is cropped against it too
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # less than half of what the image has
    assert decode(buffer.getvalue(), "large.tif", max_side=32).shape == (3, 32, 32)
    assert Image.MAX_IMAGE_PIXELS == 1000
