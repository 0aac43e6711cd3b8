"""Image-text pairs: which image goes with which caption, in every form they are stored in."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffcern.data import MatchingExample, UnreadableImage, load_pairs, readable
from diffcern.errors import DiffcernError, UsageError

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def png(value: int, mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (2, 2), value).convert(mode).save(buffer, format="PNG")
    return buffer.getvalue()


def stored(*images: bytes) -> pa.Array:
    return pa.array([{"bytes": data, "path": None} for data in images], IMAGE)


def values(example: MatchingExample) -> list[int]:
    """The grey values that `png` was given."""
    assert all(image.shape == (3, 2, 2) for image in example.images)
    return [round(image.mean().item() * 255) for image in example.images]


def table(path: Path, **columns: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


ROWS = [  # image i of example k is grey 10 k + i, and its caption says so
    {
        "id": 3 * k,
        "caption_0": f"grey {10 * k}",
        "caption_1": f"grey {10 * k + 1}",
        "tag": f"tag {k}",
        "secondary_tag": "Morpheme-Level" if k else None,
        "num_main_preds": 1,
        "collapsed_tag": "Object",
    }
    for k in range(3)
]


def hub_table(path: Path, **changes: object) -> Path:
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    sides = {
        f"image_{i}": stored(*(png(10 * k + i, mode) for k, mode in enumerate(["L", "RGBA", "P"]))) for i in (0, 1)
    }
    return table(path, **columns | sides | changes)


def hub_folder(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    lines = []
    for k in reversed(range(3)):
        names = {f"image_{i}": f"ex_{3 * k}_img_{i}" for i in (0, 1)}
        for i in (0, 1):
            (root / "images" / f"ex_{3 * k}_img_{i}.png").write_bytes(png(10 * k + i))
        lines.insert(0, json.dumps(ROWS[k] | names))
    (root / "examples.jsonl").write_text("\n".join(lines) + "\n")
    return root


def test_winoground_is_the_same_in_each_form(tmp_path: Path) -> None:
    one = hub_table(tmp_path / "parquet" / "test-00000-of-00001.parquet")
    folder = hub_folder(tmp_path / "repository" / "data")
    for path in (one, one.parent, folder, folder.parent):
        pairs = load_pairs(f"winoground:{path}")
        assert (pairs.name, list(pairs.ids), len(pairs)) == ("winoground", ["0", "3", "6"], 3)
        for example in pairs:
            assert tuple(f"grey {value}" for value in values(example)) == example.captions
        assert pairs[-1].id == "6"
        assert pairs[0].tags == {"tag": "tag 0", "secondary_tag": "", "collapsed_tag": "Object"}
        assert pairs[1].tags["secondary_tag"] == "Morpheme-Level"
        with pytest.raises(IndexError):
            pairs[3]


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    path = hub_table(tmp_path / "a.parquet", image_1=stored(png(1), b"junk", png(21)))
    results = list(readable(load_pairs(f"winoground:{path}")))
    assert [type(result) for result in results] == [MatchingExample, UnreadableImage, MatchingExample]
    assert str(results[1]).startswith("cannot read image '3': image 1 (3): not an image")
    folder = hub_folder(tmp_path / "data")
    (folder / "images" / "ex_6_img_0.png").write_bytes(b"")
    with pytest.raises(UnreadableImage, match=r"'6': image 0 \(ex_6_img_0\.png\): the file is empty"):
        load_pairs(f"winoground:{folder}")[2]


def test_winoground_errors(tmp_path: Path) -> None:
    with pytest.raises(DiffcernError, match="caption_1 of example '3' must be a text, but is None"):
        load_pairs(f"winoground:{hub_table(tmp_path / 'a.parquet', caption_1=['x', None, 'y'])}")
    with pytest.raises(DiffcernError, match="no column 'image_0'; it has image, caption"):
        load_pairs(f"winoground:{table(tmp_path / 'b.parquet', image=stored(png(1)), caption=['x'])}")
    with pytest.raises(DiffcernError, match="'3' occurs 2 times"):
        load_pairs(f"winoground:{hub_table(tmp_path / 'c.parquet', id=[3, 3, 4])}")
    folder = hub_folder(tmp_path / "data")
    (folder / "images" / "ex_3_img_1.png").unlink()
    with pytest.raises(DiffcernError, match=r"images lacks images that examples\.jsonl names: ex_3_img_1\."):
        load_pairs(f"winoground:{folder}")
    (folder / "images").rename(folder / "elsewhere")
    with pytest.raises(DiffcernError, match=r"no such folder: .*images; unpack images\.zip"):
        load_pairs(f"winoground:{folder}")
    (folder / "examples.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(DiffcernError, match=r"examples\.jsonl, line 1: not a JSON object with id, image_0"):
        load_pairs(f"winoground:{folder}")


def test_pairs_with_negatives(tmp_path: Path) -> None:
    path = table(
        tmp_path / "pairs.parquet",
        image=stored(png(1), png(2), png(3)),
        caption=["grey 1", "grey 2", "grey 3"],
        negatives=[["a cat", "a dog"], None, []],
        label=["unused", "unused", "unused"],  # words, which a labelled table would refuse
    )
    for pairs in (load_pairs(f"pairs:{path}"), load_pairs(str(path))):
        assert list(pairs.ids) == ["0", "1", "2"]
        assert [values(example) for example in pairs] == [[1], [2], [3]]
        assert [example.captions for example in pairs] == [("grey 1", "a cat", "a dog"), ("grey 2",), ("grey 3",)]
        assert pairs[0].tags == {}


def test_rows_of_one_group_are_one_example(tmp_path: Path) -> None:
    path = table(
        tmp_path / "pairs.parquet",
        image=stored(*map(png, [1, 2, 3, 4, 5])),
        caption=[f"grey {value}" for value in [1, 2, 3, 4, 5]],
        group=["b", "a", None, "b", "a"],
        negatives=[["no"], [], [], ["nor this"], []],
        id=["r1", "r2", "r3", "r4", "r5"],
    )
    pairs = load_pairs(f"pairs:{path}")
    assert list(pairs.ids) == ["b", "a", "r3"]
    assert [values(example) for example in pairs] == [[1, 4], [2, 5], [3]]
    assert [e.captions for e in pairs] == [("grey 1", "grey 4", "no", "nor this"), ("grey 2", "grey 5"), ("grey 3",)]


def test_pairs_errors(tmp_path: Path) -> None:
    with pytest.raises(DiffcernError, match="no column caption; it has image, text"):
        load_pairs(f"pairs:{table(tmp_path / 'a.parquet', image=stored(png(1)), text=['x'])}")
    with pytest.raises(DiffcernError, match="caption of example '0' must be a text, but is ' '"):
        load_pairs(f"pairs:{table(tmp_path / 'b.parquet', image=stored(png(1)), caption=[' '])}")
    path = table(tmp_path / "c.parquet", image=stored(png(1), b"junk"), caption=["x", "y"], group=[1, 1])
    with pytest.raises(UnreadableImage, match=r"'1': image 1 \(1\): not an image"):
        load_pairs(f"pairs:{path}")[0]
    known = r"Known: FILE\.parquet, embedded:scenes\[/SPLIT\], pairs:FILE\.parquet, winoground:PATH"
    with pytest.raises(UsageError, match=known):
        load_pairs("wino")
    with pytest.raises(UsageError, match="form is winoground:PATH"):
        load_pairs("winoground:")
    with pytest.raises(DiffcernError, match=r"no \.parquet file"):
        load_pairs(f"{tmp_path}/none.parquet")
