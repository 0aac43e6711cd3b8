"""Text files that people write, read one way: labels, prompts, class maps, specifications, lists of examples.

UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one. Whatever is wrong is named with its line.
Knows nothing about what the texts mean.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from diffcern.errors import DiffcernError

MARKS = {  # UTF-32's begins with UTF-16's
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
SAVE = "save it as UTF-8"


def is_file(text: str) -> bool:
    """Whether a text that may be anything names a file; no error for one that no file system could hold."""
    try:
        return bool(text) and Path(text).is_file()
    except (OSError, ValueError):  # too long, a zero byte
        return False


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark. Raises DiffcernError that names the line which is no text."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DiffcernError(f"cannot read {path}: {error.strerror}") from error
    return decode_text(data, path)


def decode_text(data: bytes, path: Path | str) -> str:
    """As `read_text`, of bytes that were read already."""
    mark, encoding = next(((mark, name) for mark, name in MARKS.items() if data.startswith(mark)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: len(mark) + error.start].count(b"\n") + 1
        raise DiffcernError(f"{path}, line {line}: not {encoding.upper()} text ({error.reason}): {SAVE}") from error
    if "\0" in text:  # UTF-16 without its mark, or no text at all
        raise DiffcernError(f"{path}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: not text: {SAVE}")
    return text


def read_json(path: Path, *, twice: bool = True, finite: bool = True) -> Any:
    """The content of a JSON file. Raises DiffcernError where it is none.

    twice: whether an object may give a key twice (the last one counts); False is for what people write by hand.
    finite: whether infinity, which JSON does not know, is refused as NaN is; some libraries write it.
    """
    return parse_json(read_text(path), str(path), twice=twice, finite=finite)


def parse_json(text: str, where: str, *, twice: bool = True, finite: bool = True) -> Any:
    """As `read_json`, of a text; where: what messages call it."""

    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        check_once([name for name, _ in pairs], where)
        return dict(pairs)

    def constant(name: str) -> float:
        if finite or name == "NaN":
            raise DiffcernError(f"{where} holds {name}: numbers must be finite")
        return float(name)

    try:
        return json.loads(text, object_pairs_hook=None if twice else once, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise DiffcernError(f"{where} is not JSON: {reason}") from error


def read_json_lines(path: Path) -> list[tuple[str, Any]]:
    """A JSON value from each line that is not empty, each after its place ("FILE, line 3"). Raises as `read_json`."""
    # not splitlines, which takes characters for line ends that JSON leaves in its strings
    lines = [(f"{path}, line {number}", line) for number, line in enumerate(read_text(path).split("\n"), start=1)]
    return [(place, parse_json(line, place)) for place, line in lines if line.strip()]


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises DiffcernError where it is none."""
    try:
        return tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise DiffcernError(f"{path} is not TOML: {reason}") from error


def parse_csv(
    text: str, path: Path, wanted: Sequence[Collection[str]], optional: Collection[str] = (), separator: str = ","
) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, without space around cells; lines without any cell are passed over. Columns
    are called in lower case.

    wanted: the columns that are read, each under one of its names, and optional: those that may be left out; filled in
    every row. Raises DiffcernError that names the line of a row that is longer or shorter than the header or lacks a
    value, and for a header that names a column twice or lacks one.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator, skipinitialspace=True)
    rows: list[dict[str, str]] = []
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        check_once([name for name in header if name], f"the header of {path}")
        columns = [next((name for name in names if name in header), None) for names in wanted]
        columns += [name for name in optional if name in header]
        if None in columns:
            lacks = " and ".join(" or ".join(names) for names, found in zip(wanted, columns, strict=False) if not found)
            raise DiffcernError(f"{path} has no column {lacks}; it has {', '.join(header) or 'none'}")
        for cells in reader:
            place = f"{path}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise DiffcernError(
                    f"{place}: {len(cells)} cells where the header has {len(header)}: a text that holds a comma goes "
                    'into quotes, "cat, black"'
                )
            row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
            if empty := [name for name in columns if name and not row[name]]:
                raise DiffcernError(f"{place}: {', '.join(empty)} is empty: fill it in, or leave the line out")
            rows.append(row)
    except csv.Error as error:
        raise DiffcernError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
    return rows


def check_once(names: Sequence[str], where: str) -> None:
    """Raises DiffcernError for a name that stands twice."""
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DiffcernError(f"{where} names {', '.join(twice)} twice")
