import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffcern.errors import DiffcernError, UsageError
from diffcern.run import columns
from diffcern.run.journal import Journal, check_out, read_rows


def test_rows_survive_a_torn_line(tmp_path):
    first = Journal(tmp_path / "r.parquet", {"seed": 0})
    for i in range(5):
        first.add({"id": f"{i}", "error": None})
    with first.path.open("a") as file:
        file.write('{"id": "5", "er')
    del first
    again = Journal(tmp_path / "r.parquet", {"seed": 0})
    assert [row["id"] for row in again.rows] == list("01234")
    again.add({"id": "10", "error": "x", "extra": 1})
    again.finish()
    assert len(pq.read_table(tmp_path / "r.parquet")) == 6
    assert not again.path.exists()


def test_other_settings_are_refused(tmp_path):
    Journal(tmp_path / "r.csv", {"seed": 0}).add({"id": "a"})
    with pytest.raises(DiffcernError, match="other settings"):
        Journal(tmp_path / "r.csv", {"seed": 1})
    assert len(Journal(tmp_path / "r.csv", {"seed": 0}, overwrite=True).rows) == 1
    assert Journal(tmp_path / "r.csv", {"seed": 1}, overwrite=True).rows == []
    assert Journal(tmp_path / "r.csv", {"seed": 1}).rows == []


def test_one_command_at_a_time(tmp_path):
    first = Journal(tmp_path / "r.csv", {"seed": 0})
    first.add({"id": "a"})
    for overwrite in (False, True):
        with pytest.raises(DiffcernError, match=r"another command is writing .*r\.csv"):
            Journal(tmp_path / "r.csv", {"seed": 0}, overwrite=overwrite)
    first.restart()  # is still locked
    with pytest.raises(DiffcernError, match="another command"):
        Journal(tmp_path / "r.csv", {"seed": 0})
    first.finish()
    assert (tmp_path / "r.csv").is_file()
    Journal(tmp_path / "r.csv", {"seed": 0}, overwrite=True).finish()
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


def test_suffix_and_folder_are_checked_first(tmp_path):
    with pytest.raises(UsageError, match=r"\.parquet"):
        Journal(tmp_path / "r.xlsx", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(DiffcernError, match=r"cannot write .*file is a file"):
        Journal(tmp_path / "file" / "r.csv", {})
    (tmp_path / "r.csv").mkdir()
    with pytest.raises(DiffcernError, match="is a folder"):
        Journal(tmp_path / "r.csv", {}, overwrite=True)


ROWS = [{"id": f"{k}", "after": "cat", "confidence": k / 7, "error": None} for k in range(5)]
SETTINGS = {"seed": 0, "images": "ü"}


@pytest.fixture
def begun(tmp_path):
    """The result file of a journal of five rows, and its lines."""
    journal = Journal(tmp_path / "r.parquet", SETTINGS)
    for row in ROWS:
        journal.add(row)
    return tmp_path / "r.parquet", journal.path.read_bytes().split(b"\n")[:-1]


def put(out, lines):
    out.with_name(".r.parquet.partial.jsonl").write_bytes(b"\n".join([*lines, b""]))


def test_the_header_is_what_it_was_and_rows_are_as_they_were_given(begun):
    out, lines = begun
    assert lines[0] == json.dumps(SETTINGS, sort_keys=True).encode()
    for line, row in zip(lines[1:], ROWS, strict=True):
        stored = json.loads(line)
        assert list(stored) == [*row, "checksum"]  # an older version reads one column more
        assert {**row, "checksum": stored["checksum"]} == stored
    journal = Journal(out, SETTINGS)
    assert journal.rows == ROWS
    journal.finish()
    assert pq.read_table(out).column_names == list(ROWS[0])


CHANGES = {
    "an edited answer": lambda line: line.replace(b"cat", b"dog"),
    "an edited number": lambda line: line.replace(b'"confidence": 0.', b'"confidence": 0.1'),
    "a checksum of another row": lambda line: line[:-14] + b'aaaaaaaaaaaa"}',
    "no checksum": lambda line: json.dumps({**ROWS[2], "after": "dog"}).encode(),
    "a misspelt checksum": lambda line: line.replace(b"checksum", b"checcsum"),
    "another form": lambda line: b'{"id": "2"}',
    "a list": lambda line: b"[1, 2]",
    "a number": lambda line: b"3",
    "no id": lambda line: b'{"x": 1}',
    "an id that is no text": lambda line: b'{"id": 2, "error": null}',
    "an error that is no text": lambda line: b'{"id": "2", "error": 1}',
    "no JSON": lambda line: line[:10],
    "no text": lambda line: b"\xff\xfe" + line,
    "zeros": lambda line: b"\0" * len(line),
    "nothing": lambda line: b"",
    "nesting": lambda line: b"[" * 100_000,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_damaged_row_is_named_and_made_again_with_overwrite(begun, change):
    out, lines = begun
    put(out, [*lines[:3], change(lines[3]), *lines[4:]])
    for _ in range(2):  # nothing is lost by asking
        with pytest.raises(DiffcernError, match=r"partial\.jsonl, line 4 .*--overwrite.* keep the other 4 rows"):
            Journal(out, SETTINGS)
    journal = Journal(out, SETTINGS, overwrite=True)
    assert journal.rows == [row for row in ROWS if row["id"] != "2"]
    journal.add(ROWS[2])
    del journal
    assert {row["id"]: row for row in Journal(out, SETTINGS).rows} == {row["id"]: row for row in ROWS}


def test_a_torn_line_behind_a_damaged_one(begun):
    out, lines = begun
    put(out, [lines[0], b"x", *lines[2:]])
    with out.with_name(".r.parquet.partial.jsonl").open("ab") as file:
        file.write(lines[1][:30])
    assert Journal(out, SETTINGS, overwrite=True).rows == ROWS[1:]
    assert Journal(out, SETTINGS).rows == ROWS[1:]


def test_doubled_rows_and_rows_of_another_journal(begun, tmp_path):
    out, lines = begun
    put(out, [*lines, lines[2]])
    with pytest.raises(DiffcernError, match="line 7 answers '1' a second time"):
        Journal(out, SETTINGS)
    assert Journal(out, SETTINGS, overwrite=True).rows == ROWS
    other = Journal(tmp_path / "other.csv", {"seed": 1})
    other.add({**ROWS[0], "id": "9"})
    put(out, [*lines, other.path.read_bytes().split(b"\n")[1]])
    with pytest.raises(DiffcernError, match=r"line 7 was changed since it was written \(its checksum differs\)"):
        Journal(out, SETTINGS)
    put(out, [lines[0], *[b"x"] * 3])
    with pytest.raises(DiffcernError, match=r"line 2 is no row of a result, and 2 more: .* the other 0 rows"):
        Journal(out, SETTINGS)


@pytest.mark.parametrize("header", [b"", b"{", b"\xff\xfe", b"[]", b"\0" * 8])
def test_a_damaged_first_line_starts_again_with_overwrite(begun, header):
    out, lines = begun
    put(out, [header, *lines[1:]])
    with pytest.raises(DiffcernError, match=r"is damaged in line 1: give --overwrite"):
        Journal(out, SETTINGS)
    assert Journal(out, SETTINGS, overwrite=True).rows == []
    assert Journal(out, SETTINGS).rows == []


def test_a_journal_of_an_older_version_goes_on(begun):
    out, lines = begun
    old = [json.dumps(row).encode() for row in ROWS]
    put(out, [lines[0], *old[:3]])
    with out.with_name(".r.parquet.partial.jsonl").open("ab") as file:
        file.write(b'{"id": "3", "aft')
    journal = Journal(out, SETTINGS)
    assert journal.rows == ROWS[:3]
    journal.add(ROWS[3])
    del journal
    assert Journal(out, SETTINGS).rows == ROWS[:4]
    continued = out.with_name(".r.parquet.partial.jsonl").read_bytes().split(b"\n")
    for changed in (
        [*continued[:5], old[4]],
        [*continued[:2], old[2], continued[4], old[3]],
        [lines[0], old[0], lines[2]],
    ):
        put(out, changed)  # once there are checksums, a row without one is none that an older version left
        with pytest.raises(DiffcernError, match="was changed since it was written"):
            Journal(out, SETTINGS)
    put(out, [*continued[:2], *continued[3:5]])
    assert Journal(out, SETTINGS).rows == [ROWS[0], *ROWS[2:4]]
    put(out, [lines[0], old[0], b'{"id": "1"}'])
    with pytest.raises(DiffcernError, match="line 3 is no row of a result"):
        Journal(out, SETTINGS)
    put(out, [lines[0], old[0], json.dumps({**ROWS[1], "confidence": "much"}).encode()])
    journal = Journal(out, SETTINGS)  # before checksums, a row of the right form is believed
    with pytest.raises(DiffcernError, match="rows of several forms"):
        journal.finish()


def test_a_finished_table_that_is_damaged(tmp_path):
    (tmp_path / "r.parquet").write_bytes(b"PAR1")
    with pytest.raises(DiffcernError, match=r"cannot read .*r\.parquet: .*Delete it"):
        read_rows(tmp_path / "r.parquet")
    pq.write_table(pa.table({"id": [1]}), tmp_path / "r.parquet")
    with pytest.raises(DiffcernError, match="Delete it"):
        read_rows(tmp_path / "r.parquet")


def test_a_columns_type_does_not_depend_on_its_rows(tmp_path):
    """A loss that no row has is a column of numbers all the same, and an image that could not be read lacks none."""
    schemas = []
    for name, rows in {"all": FULL, "none": [{"id": "a", "error": "unreadable"}], "plain": PLAIN}.items():
        journal = Journal(tmp_path / f"{name}.parquet", {}, schema=columns.adapted(maps=False, batch=False))
        for row in rows:
            journal.add(row)
        journal.finish()
        schemas.append(pq.read_schema(tmp_path / f"{name}.parquet"))
    assert schemas[0] == schemas[1] == schemas[2] == columns.adapted(maps=False, batch=False)


FULL = [
    {
        **{"id": "a", "before": "x", "before_confidence": 0.5, "after": "y", "after_confidence": 0.5, "changed": True},
        **{"loss_first": 0.1, "loss_last": 0.1, "steps": 1, "nfe_forward": 2, "nfe_backward": 2, "seconds": 1.0},
        "error": None,
    }
]
PLAIN = [{**FULL[0], "loss_first": None, "loss_last": None}]  # of source, which has no loss


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".json"])
def test_a_table_is_in_the_order_of_ids(tmp_path, suffix):
    """With every column that some row has; one that is empty in all is a column of texts."""
    journal = Journal(tmp_path / f"r{suffix}", {})
    rows = [{"id": "b", "error": None, "score": 0.5}, {"id": "a", "error": None}, {"id": "c", "error": None, "n": 2}]
    for row in rows:
        journal.add(row)
    journal.finish()
    assert [path.name for path in tmp_path.iterdir()] == [f"r{suffix}"]
    ordered = [rows[1], rows[0], rows[2]]
    if suffix == ".json":
        assert (tmp_path / "r.json").read_text() == json.dumps(ordered, indent=1) + "\n"
        return
    if suffix == ".csv":
        text = (tmp_path / "r.csv").read_text().splitlines()
        assert text == ['"id","error","score","n"', '"a",,,', '"b",,0.5,', '"c",,,2']
        return
    table = pq.read_table(tmp_path / "r.parquet")
    assert table.to_pylist() == [{"id": None, "error": None, "score": None, "n": None} | row for row in ordered]
    assert table.schema.field("error").type == pa.string()
    assert read_rows(tmp_path / "r.parquet") == table.to_pylist()


def test_a_checksum_is_of_settings_row_and_what_it_answers_about(tmp_path):
    """BLAKE2b of 6 bytes over the lines; before it, how many rows an older version left."""
    digests = {"a": "pixels of a", "b": ""}
    journal = Journal(tmp_path / "r.json", SETTINGS, digest=digests.__getitem__)
    for row in ({"id": "a", "error": None}, {"id": "b", "error": None}):
        journal.add(row)
        header = json.dumps(SETTINGS, sort_keys=True)
        lines = ["0", header, json.dumps(row), *filter(None, [digests[row["id"]]])]
        expected = hashlib.blake2b("\n".join(lines).encode(), digest_size=6).hexdigest()
        assert json.loads(journal.path.read_text().splitlines()[-1])["checksum"] == f"0-{expected}"


def test_a_row_about_another_image_is_no_answer_any_more(tmp_path):
    def journal(about, **options):
        return Journal(tmp_path / "r.json", SETTINGS, digest=lambda id_: about, **options)

    first = journal("these pixels")
    first.add(ROWS[0])
    del first
    assert journal("these pixels").rows == ROWS[:1]
    with pytest.raises(DiffcernError, match=r"line 2 was changed .*\(its checksum differs\), or its image was"):
        journal("other pixels")
    with pytest.raises(DiffcernError, match=r"\(its checksum differs\): give"):
        journal("")  # who does not know what it answers about
    assert journal("other pixels", overwrite=True).rows == []


def test_a_row_from_before_images_had_digests_is_believed(tmp_path):
    first = Journal(tmp_path / "r.json", SETTINGS)
    first.add(ROWS[0])
    del first
    assert Journal(tmp_path / "r.json", SETTINGS, digest=lambda id_: "pixels").rows == ROWS[:1]


def test_result_files_that_are_there_are_kept(tmp_path):
    (tmp_path / "r.csv").write_text("mine")
    with pytest.raises(DiffcernError, match="exists: give another --out, or --overwrite"):
        check_out(tmp_path / "r.csv")
    check_out(tmp_path / "r.csv", overwrite=True)
    check_out(tmp_path / "new" / "r.json")
    assert (tmp_path / "r.csv").read_text() == "mine"
    for suffix in (".txt", ""):
        with pytest.raises(UsageError, match=r"ends in \.parquet, \.csv, \.json, not"):
            check_out(tmp_path / f"r{suffix}")


def test_what_json_does_not_know_is_written_as_text(tmp_path):
    journal = Journal(tmp_path / "r.json", {"images": tmp_path / "images", "a": 1})
    assert json.loads(journal.path.read_text()) == {"a": 1, "images": str(tmp_path / "images")}


def test_a_journal_that_is_refused_is_closed_at_once(tmp_path):
    """Whatever holds on to the error: the next command must find it free."""

    def opened():
        links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(link.name == ".r.csv.partial.jsonl" for link in links)

    first = Journal(tmp_path / "r.csv", {"seed": 0})
    with pytest.raises(DiffcernError, match="another command") as busy:
        Journal(tmp_path / "r.csv", {"seed": 0})
    assert opened() == 1
    first.add({"id": "a", "error": None})
    first._file.close()
    with pytest.raises(DiffcernError, match="other settings") as other:
        Journal(tmp_path / "r.csv", {"seed": 1})
    assert opened() == 0
    assert busy.value is not other.value
    last = Journal(tmp_path / "r.csv", {"seed": 0})
    last.finish()
    assert opened() == 0


def test_a_folder_is_made_and_what_cannot_be_written_is_named(tmp_path):
    Journal(tmp_path / "a" / "b" / "r.csv", {}).finish()
    assert (tmp_path / "a" / "b" / "r.csv").is_file()
    (tmp_path / ".r.csv.partial.jsonl").mkdir()
    with pytest.raises(DiffcernError, match=r"cannot write \S+r\.csv: Is a directory; give another --out"):
        Journal(tmp_path / "r.csv", {})
