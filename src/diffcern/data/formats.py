"""Which files are images: by the name that they have, or else by how their content begins.

A file whose name says that it is an image is one, whether it can be decoded here or not: what cannot be read is named
and counted, never passed over. A file of another name, or of none, is one where its first bytes say so.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path, PurePath
from typing import IO

from PIL import Image

DECODED = (  # by Pillow
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".avif"),
)
HEIF = (".heic", ".heif", ".hif")  # with pillow-heif
RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw")  # of cameras
UNREAD = (  # images of other kinds, which are named and not decoded
    *(".jxl", ".jxr", ".psd", ".ico", ".icns", ".svg", ".exr", ".hdr", ".pfm", ".pcx", ".eps", ".dds", ".qoi"),
    *(".sgi", ".ras", ".xbm", ".xpm", ".xcf", ".fits", ".dcm"),
)
SUFFIXES = (*DECODED, *HEIF, *RAW, *UNREAD)
# Of files that lie beside images and are none, so that a folder of a million annotations is not opened file by file.
OTHERS = (
    *(
        ".txt",
        ".json",
        ".jsonl",
        ".csv",
        ".tsv",
        ".xml",
        ".yaml",
        ".yml",
        ".toml",
        ".md",
        ".html",
        ".py",
        ".ini",
        ".log",
    ),
    *(".npy", ".npz", ".mat", ".pt", ".pth", ".pkl", ".safetensors", ".parquet", ".arrow", ".zip", ".tar", ".gz"),
    *(".pdf", ".mp4", ".mov", ".avi", ".xmp", ".db", ".sqlite"),
)
# Named one by one, so that Pillow never hands a file to an interpreter (EPS starts Ghostscript). TGA, which has no mark
# to be known by, is read where the name says so.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
BEGINNING = 64  # bytes that tell the kind
BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIC"
)
PNG_MARK = b"\x89PNG\r\n\x1a\n"
BITMAP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # their sizes: "BM" alone begins many a text


def is_image(path: PurePath) -> bool:
    """Whether the suffix, in any case, is one of `SUFFIXES`."""
    return path.suffix.lower() in SUFFIXES


def holds_image(path: Path) -> bool:
    """Whether a file is an image, by its suffix or else its first bytes; what is no file, is none."""
    if not path.is_file():
        return path.is_symlink() and is_image(path)  # to nowhere: an image that is missing
    if is_image(path):
        return True
    if path.suffix.lower() in OTHERS:
        return False
    try:
        with path.open("rb") as stream:
            return kind_of(stream.read(BEGINNING)) is not None
    except OSError:
        return False


def kind_of(beginning: bytes) -> str | None:
    """The format that these first bytes are of, None where they are of no image that is known here."""
    if beginning[4:8] == b"ftyp":
        brands = [beginning[start : start + 4] for start in (8, *range(16, len(beginning), 4))]
        kinds = {BRANDS[brand] for brand in brands if brand in BRANDS}
        return "AVIF" if "AVIF" in kinds else next(iter(kinds), None)
    if beginning.startswith(b"RIFF"):
        return "WEBP" if beginning[8:12] == b"WEBP" else None
    if beginning.startswith(b"BM"):
        return "BMP" if int.from_bytes(beginning[14:18], "little") in BITMAP_HEADERS else None
    if beginning[:1] == b"P" and beginning[1:2] in b"123456" and beginning[2:3] in (b"\n", b" ", b"\t", b"\r"):
        return "PPM" if beginning[3:4].isdigit() or beginning[3:4] == b"#" else None
    marks = {
        b"\xff\xd8\xff": "JPEG",
        PNG_MARK: "PNG",
        b"GIF87a": "GIF",
        b"GIF89a": "GIF",
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
        b"II+\0": "TIFF",
        b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
        b"\xff\x4f\xff\x51": "JPEG2000",
        b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    }
    return next((kind for mark, kind in marks.items() if beginning.startswith(mark)), None)


def pillow_formats(name: str) -> list[str]:
    """What Pillow may take the content of a file of this name for."""
    targa = ("TGA",) if PurePath(name).suffix.lower() == ".tga" else ()
    return [*_installed(), *targa]


def refusal(name: str, stream: IO[bytes]) -> str | None:
    """Why a file is not to be decoded, or could not be: None where nothing is known against it."""
    if PurePath(name).suffix.lower() in RAW:  # Pillow would take the preview for the picture
        return "a camera's raw file: develop it into a JPEG, PNG or TIFF first"
    stream.seek(0)
    kind = kind_of(stream.read(BEGINNING))
    stream.seek(0)
    if kind == "HEIC" and "HEIF" not in _installed():
        return "a HEIC image: pip install 'diffcern[heif]', or convert it to JPEG or PNG"
    if kind == "AVIF" and not _decodes_avif():
        return "an AVIF image, which this Pillow cannot decode: install Pillow 11.3 or newer, or convert it"
    if kind == "JPEG XL":
        return "a JPEG XL image: convert it to JPEG or PNG"
    return None


REMARKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # PNG's chunks of text, and its colour profile, which is not applied


def without_remarks(png: bytes) -> bytes:
    """A PNG without texts and colour profile, of which Pillow reads no more than 1 MiB: programs keep whole workflows
    there. What is no whole PNG comes back as far as it goes."""
    kept, place = [png[: len(PNG_MARK)]], len(PNG_MARK)
    while place + 8 <= len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4], "big")
        if png[place + 4 : place + 8] not in REMARKS:
            kept.append(png[place:end])
        place = end
    return b"".join(kept)


@cache
def _installed() -> tuple[str, ...]:
    """The formats that Pillow knows here; with pillow-heif, where that is installed, also HEIF."""
    Image.init()
    try:
        import pillow_heif
    except ImportError:
        heif: tuple[str, ...] = ()
    else:
        pillow_heif.register_heif_opener()
        heif = ("HEIF",)
    return tuple(known for known in (*FORMATS, *heif) if known in Image.OPEN)


@cache
def _decodes_avif() -> bool:
    from PIL import features

    return bool("avif" in features.get_supported_modules())
