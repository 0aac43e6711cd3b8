"""What counts as an image: by its name or by how it begins; what cannot be decoded is named and counted."""

from __future__ import annotations

import io
import json
import os

import pytest
import torch
from PIL import Image, features

from diffcern.data import UnreadableImage, load_dataset, readable
from diffcern.data.folder import ImageFolder
from diffcern.data.formats import SUFFIXES, holds_image, kind_of
from diffcern.data.images import decode, encode_png
from diffcern.errors import DiffcernError

# Pillow's name of a format -> what it is called here; those without loss come back exactly.
KINDS = {"JPEG": "JPEG", "PNG": "PNG", "GIF": "GIF", "BMP": "BMP", "TIFF": "TIFF", "WEBP": "WEBP", "PPM": "PPM"}
KINDS |= {"JPEG2000": "JPEG2000", "AVIF": "AVIF"}
LOSSLESS = ("PNG", "BMP", "TIFF", "PPM")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
JPEG_XL = b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 100, 50)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["photo", "photo.1", "IMG_0001.jpg_large", "photo.heic", "photo.unknown"])
def test_content_decides(kind, name, tmp_path):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    (tmp_path / name).write_bytes(encoded(kind))
    assert kind_of(encoded(kind)[:64]) == KINDS[kind]
    dataset = load_dataset(str(tmp_path))
    assert dataset.ids == [name]
    expected = torch.tensor([200, 100, 50]).view(3, 1, 1) / 255
    assert (dataset[0].image - expected).abs().max() < (1e-6 if kind in LOSSLESS else 0.05)
    assert torch.equal(load_dataset(str(tmp_path / name))[0].image, dataset[0].image)


@pytest.mark.parametrize("suffix", [".jpe", ".jfif", ".JFIF", ".tga", ".TGA", ".dib", ".pnm", ".jp2", ".avif", ".apng"])
def test_suffixes_that_were_passed_over(suffix, tmp_path):
    kinds = {".tga": "TGA", ".dib": "DIB", ".pnm": "PPM", ".jp2": "JPEG2000", ".avif": "AVIF", ".apng": "PNG"}
    (tmp_path / f"a{suffix}").write_bytes(encoded(kinds.get(suffix.lower(), "JPEG")))
    (sample,) = ImageFolder(tmp_path)
    assert sample.image.shape == (3, 6, 8)


def test_what_cannot_be_decoded_is_named_and_counted(tmp_path, cli, monkeypatch):
    monkeypatch.setattr("diffcern.data.formats._installed", lambda: ("JPEG", "PNG"))
    (tmp_path / "a.png").write_bytes(encode_png(torch.rand(3, 8, 8)))
    (tmp_path / "b.heic").write_bytes(HEIC)
    (tmp_path / "c").write_bytes(HEIC)
    (tmp_path / "d.jxl").write_bytes(JPEG_XL)
    (tmp_path / "e.nef").write_bytes(encoded("TIFF"))  # raw files are TIFF, with a preview that Pillow would decode
    (tmp_path / "f.avif").write_bytes(b"nothing of the kind")
    (tmp_path / "g.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found = {item.name: item.reason for item in readable(ImageFolder(tmp_path)) if isinstance(item, UnreadableImage)}
    assert found.keys() == {"b.heic", "c", "d.jxl", "e.nef", "f.avif", "g.jpg"}
    assert "diffcern[heif]" in found["b.heic"]
    assert found["c"] == found["b.heic"]
    assert "JPEG XL" in found["d.jxl"]
    assert "raw file: develop it" in found["e.nef"]
    assert "not an image of a known format" in found["f.avif"]
    assert found["g.jpg"] == "no such file"
    out = tmp_path / "out" / "rows.json"
    out.parent.mkdir()
    arguments = ["adapt", tmp_path, "--predictor", "embedded:digits", "--method", "source", "--out", out]
    code, _, err = cli(*arguments)
    assert code == 0
    assert "skipped b.heic: a HEIC image" in err
    assert "1 rows in" in err
    assert "6 skipped" in err
    code, _, _ = cli(*arguments, "--strict", "--overwrite")
    assert code == 1
    assert len(json.loads(out.read_text())) == 7


def test_what_lies_beside_images_is_left_alone(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_png(torch.rand(3, 8, 8)))
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    (tmp_path / "labels.json").write_text("{}")
    (tmp_path / "notes").write_text("BMW, P1 and P5 are cars; GIF is a format")
    (tmp_path / "empty").touch()
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100))
    (tmp_path / "sound").write_bytes(b"RIFF\0\0\0\0WAVEfmt ")
    (tmp_path / "video").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isommp42")
    (tmp_path / ".hidden").write_bytes(encode_png(torch.rand(3, 8, 8)))
    (tmp_path / "page.txt").write_bytes(encode_png(torch.rand(3, 8, 8)))  # its name says that it is none
    os.mkfifo(tmp_path / "pipe")  # which would never end
    os.mkfifo(tmp_path / "pipe.jpg")
    assert ImageFolder(tmp_path).ids == ["a.png"]
    with pytest.raises(DiffcernError, match=r"notes is not an image, neither by its suffix"):
        ImageFolder(tmp_path / "notes")


def test_a_folder_of_files_that_cannot_be_decoded_is_no_empty_folder(tmp_path):
    (tmp_path / "a.cr2").write_bytes(encoded("TIFF"))
    assert len(ImageFolder(tmp_path)) == 1
    with pytest.raises(UnreadableImage, match="raw file"):
        ImageFolder(tmp_path)[0]


def test_garbage_is_not_taken_for_targa():
    """It has no mark to be known by: read only where the name says so."""
    targa = encoded("TGA")
    assert decode(targa, "a.tga").shape == (3, 6, 8)
    with pytest.raises(UnreadableImage, match="not an image of a known format"):
        decode(targa, "a.jpg")


def test_heic_with_its_decoder(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    image = Image.new("RGB", (16, 8), (200, 100, 50))
    image.save(tmp_path / "a.heic", quality=95)
    (sample,) = ImageFolder(tmp_path)
    assert sample.image.shape == (3, 8, 16)
    assert (sample.image - torch.tensor([200, 100, 50]).view(3, 1, 1) / 255).abs().max() < 0.05


def test_every_suffix_is_lower_case_and_once():
    assert len(set(SUFFIXES)) == len(SUFFIXES)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


def test_a_million_annotations_are_not_opened(tmp_path, monkeypatch):
    (tmp_path / "a.xml").write_bytes(encode_png(torch.rand(3, 8, 8)))
    monkeypatch.setattr("pathlib.Path.open", lambda *_: pytest.fail("opened"))
    assert not holds_image(tmp_path / "a.xml")
