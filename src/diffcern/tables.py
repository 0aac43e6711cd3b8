"""Parquet files that diffcern wrote, read back: their columns, types and values are what they were, or the error says
which file and column it is. Knows nothing about what the columns mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from diffcern.errors import DiffcernError

CHECKSUM = "records"  # in the metadata of timings: of the records beside them
COLUMN_KINDS: dict[str, Callable[[pa.DataType], bool]] = {
    "truth values": pa.types.is_boolean,
    "numbers": lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind),
    "texts": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "bytes": lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
    "lists": lambda kind: pa.types.is_list(kind) or pa.types.is_large_list(kind),
}


def read_table(file: Path, schema: pa.Schema, advice: str, optional: Collection[str] = ()) -> pa.Table:
    """The columns of `schema` from one file, in its types; optional: columns that may lack values.

    advice: how to mend the file. Raises DiffcernError for a file that cannot be read or lacks a column, and for values
    that are missing or of another kind: nothing but the width of numbers is converted.
    """
    try:
        table = pq.read_table(file, columns=schema.names, partitioning=None).select(schema.names)
        table.validate(full=True)
    except Exception as error:  # Arrow's own, KeyError, UnicodeDecodeError, ...
        reason = " ".join(str(error).split())[:300]
        what = f"cannot read {file}: {reason}. The file is truncated or none of diffcern's"
        raise DiffcernError(f"{what}; {advice}") from error
    for field in schema:
        column = table[field.name]
        if problem := _problem(column, field.type, field.name in optional):
            raise DiffcernError(f"cannot read {file}: column {field.name!r} {problem}. It was changed; {advice}")
    try:
        return table.cast(schema)
    except pa.ArrowException as error:  # a number that does not fit
        raise DiffcernError(f"cannot read {file}: {error}. It was changed; {advice}") from error


def checksum(content: bytes) -> str:
    """Of a file."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def check_records(file: Path) -> None:
    """Raises DiffcernError where a file of records is not what was written, as its file of timings tells.

    Their bytes are a function of the specification alone, so that the checksum lies beside them. Files without timings,
    and those of older versions, have none.
    """
    timings = file.parents[1] / "timings" / file.name
    if not timings.is_file():
        return
    try:
        written = (pq.read_schema(timings).metadata or {}).get(CHECKSUM.encode())
    except Exception:  # timings that cannot be read are named where they are wanted
        return
    if written is not None and written.decode("ascii", "replace") != checksum(file.read_bytes()):
        raise DiffcernError(
            f"{file} was changed or damaged since it was written (its checksum differs): run the same `diffcern bench` "
            "command again, which makes it anew"
        )


def _problem(column: pa.ChunkedArray, wanted: pa.DataType, optional: bool) -> str:
    """What keeps a column from being of the type, in words."""
    if column.null_count and not optional:
        return f"has no value in {column.null_count} of {len(column)} rows"
    kind = column.type
    if pa.types.is_dictionary(kind):  # as pandas writes texts that repeat
        kind = kind.value_type
    if pa.types.is_null(kind):
        return ""
    if _kind(kind) != _kind(wanted):
        return f"holds {_kind(kind)}, not {_kind(wanted)}"
    if _kind(kind) == "lists" and not pa.types.is_null(kind.value_type):
        inner = pa.compute.list_flatten(column)
        return _problem(inner, wanted.value_type, False)
    return ""


def _kind(kind: pa.DataType) -> str:
    return next((name for name, is_kind in COLUMN_KINDS.items() if is_kind(kind)), str(kind))
