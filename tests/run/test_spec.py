import tomllib

import pytest

from diffcern.data.corruptions import COMMON
from diffcern.errors import DiffcernError, UsageError
from diffcern.run.spec import check_same, override, parse_models, parse_spec, read_spec


def test_the_shipped_specification_is_valid():
    spec = read_spec("digits")
    assert {"source", "tent", "diffusion-tta", "diffusion-classifier"} <= set(spec.entries)
    assert read_spec("specs/digits.toml") == spec


def test_round_trip(spec, tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(spec.to_toml())
    assert read_spec(path) == spec


def test_overrides(spec, tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(spec.to_toml())
    changes = ["data.count=7", "shifts.severities=[1, 2]", "entries.tent.options.learning_rate=0.5", "name=other"]
    changed = read_spec(path, changes)
    assert changed.data.count == 7
    assert changed.shifts.cells == [("clean", 0), ("noise", 1), ("noise", 2)]
    assert changed.entries["tent"].options == {"learning_rate": 0.5}
    assert changed.name == "other"


def test_groups_stand_for_their_members(table):
    table["shifts"] = {"names": ["clean", "common", "fog"], "severities": [5]}
    cells = parse_spec(table).shifts.cells
    assert cells == [("clean", 0), *((name, 5) for name in COMMON)]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.dataset", 3, r"data\.dataset"),
        ("shifts.names", ["nois"], r"unknown shift 'nois'.*'noise'"),
        ("shifts.severities", [6], "1 to 5"),
        ("entries.tent.method", "tnt", r"unknown method 'tnt'.*'tent'"),
        ("entries.tent.options", {"learning_rat": 1}, r"'learning_rat'.*'learning_rate'"),
        ("entries.tent.batch_size", 0, "batch_size"),
        ("entries.tent.protocol", "offline", "protocol"),
        ("entries.diffusion-tta.batch_size", 8, "single images"),
        ("models.dtype", "float8", r"models\.dtype.*'float32', 'bfloat16' or 'float16'"),
        ("nme", "x", r"unknown key 'nme'. Did you mean 'name'\? Known: data, entries"),
        ("modles", {}, "specification: unknown table 'modles'.*'models'"),
        ("entries.tent.batchsize", 8, r"\[entries\.tent\]: unknown key 'batchsize'.*'batch_size'.*Known: .*protocol"),
        ("models.predicter", "x", r"\[models\]: unknown key 'predicter'.*'predictor'"),
        ("data.cuont", 3, r"\[data\]: unknown key 'cuont'.*'count'"),
        ("shifts.severity", 3, r"\[shifts\]: unknown key 'severity'.*'severities'"),
        ("entries", {}, "no entries"),
    ],
)
def test_mistakes_are_named(table, path, value, message):
    *parents, last = path.split(".")
    at = table
    for parent in parents:
        at = at[parent]
    at[last] = value
    with pytest.raises(UsageError, match=message):
        parse_spec(table)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UsageError, match=r"unknown specification.*digits"):
        read_spec("digts")
    with pytest.raises(UsageError, match="unknown specification"):
        read_spec(tmp_path / "digits.toml")  # a mistyped path is not the shipped one
    (tmp_path / "x.toml").write_text("a = = 1")
    with pytest.raises(UsageError, match="not TOML"):
        read_spec(tmp_path / "x.toml")
    with pytest.raises(UsageError, match=r"a\.b=value"):
        read_spec("digits", ["count"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"a.b" = 1', r"unknown key \'a\.b\'"),
        ('"" = 1', "unknown key ''"),
        ('"models.prior" = "x"', r"unknown key 'models\.prior'"),
        ('[data]\n"da.ta" = 1', r"\[data\]: unknown key 'da\.ta'"),
        ('[entries."a.b"]\nmethod = "source"\n"c.d" = 1', r'\[entries\."a\.b"\]: unknown key \'c\.d\''),
        ('[entries."a.b"]\nmethod = "source"', "entry name 'a.b'"),
        ("[data]\ncount = true", r"at data\.count: Input should be a valid integer"),
        ('[data]\ncount = "4"', r"at data\.count"),
        ("[data]\ncount = 4.0", r"at data\.count"),
        ("[data]\ncount = nan", r"at data\.count"),
        ("[models]\ncompile = 1", r"at models\.compile"),
        ('[models]\nlabels = ["cat", ""]', r"at models\.labels"),
        ("seed = true", "at seed"),
        ("[shifts]\nseverities = [true]", r"at shifts\.severities\.0"),
        ('name = ""', "at name"),
        ('name = "a\\u0000b"', "at name.*a name that a folder can have"),
        ('name = "/etc"', "at name"),
        ('name = ".."', "at name"),
        ('[entries.x]\nmethod = ":"', "unknown method ':'"),
        ('[entries.x]\nmethod = "math:pi"', "math:pi"),
        (
            '[entries.x]\nmethod = "tent"\noptions = {learning_rate = nan}',
            "'learning_rate' of tent: numbers are finite",
        ),
        (
            '[entries.x]\nmethod = "diffusion-tta"\noptions = {gate = inf}',
            "'gate' of diffusion-tta: numbers are finite",
        ),
    ],
)
def test_odd_keys_and_values_are_named(tmp_path, text, message):
    good = {"name": 'name = "tiny"', "data": '[data]\ndataset = "embedded:digits"', "models": "[models]"}
    good["entries"] = '[entries.source]\nmethod = "source"'
    for key in list(good):
        if text.startswith((f"{key} =", f"[{key}]")):
            del good[key]
    if text.startswith("[data]"):
        text = text.replace("[data]", '[data]\ndataset = "embedded:digits"')
    first, rest = (text, "") if not text.startswith("[") else ("", text)
    content = "\n".join([first, good.get("name", ""), rest, *(part for key, part in good.items() if key != "name")])
    (tmp_path / "a.toml").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_spec(tmp_path / "a.toml")


@pytest.mark.parametrize("assignment", ["a..b=1", ".a=1", "a.=1", "=1", "a"])
def test_assignments_without_a_name(assignment):
    with pytest.raises(UsageError, match=r"--set takes a\.b=value"):
        override({}, assignment)


def test_a_value_is_one_value():
    table = {}
    override(table, "a=1\nb = 2")  # a text, and not one that also sets b
    override(table, f"c={'[' * 10_000}")
    assert table == {"a": "1\nb = 2", "c": "[" * 10_000}


def test_what_is_left_out_is_the_default(table):
    """As docs/files.md lists them; the resolved file holds them all."""
    table = {"name": "x", "data": {"dataset": "d"}, "models": {}, "entries": {"it": {"method": "source"}}}
    written = tomllib.loads(parse_spec(table).to_toml())
    assert written == {
        "name": "x",
        "seed": 0,
        "data": {"dataset": "d", "skip": 0},
        "models": {
            "task": "classification", "allow_pickle": False, "trust_remote_code": False, "dtype": "float32",
            "compile": False,
        },
        "shifts": {"names": ["clean"], "severities": [5], "whole": False},
        "entries": {
            "it": {
                "method": "source", "preset": "paper", "protocol": "episodic", "batch_size": 1, "concentration": 0.1,
                "description": "", "options": {},
            }
        },
    }  # fmt: skip


def test_presets_are_written_out_and_given_options_stand_over_them(table):
    """So that a run folder says what was run, whatever a later version's preset is."""
    table["entries"] = {"it": {"method": "memo", "preset": "small", "options": {"views": 3}, "description": "d"}}
    entry = parse_spec(table).entries["it"]
    assert entry.options == {"views": 3, "learning_rate": 1e-3, "crops": "none"}
    assert (entry.preset, entry.description) == ("paper", "d")
    table["models"]["task"] = "segmentation"
    table["entries"] = {"it": {"method": "dda", "preset": "small"}}
    assert parse_spec(table).entries["it"].options["weight"] == 0.4


@pytest.mark.parametrize(
    ("entry", "fine"),
    [
        ({"method": "source", "batch_size": 8}, True),
        ({"method": "tent", "batch_size": 8}, True),
        ({"method": "memo", "batch_size": 1}, True),
        ({"method": "memo", "batch_size": 2}, False),
        ({"method": "memo", "batch_size": 2, "protocol": "online"}, True),
        ({"method": "diffusion-tta", "batch_size": 2, "options": {"batch_statistics": True}}, True),
        ({"method": "diffusion-tta", "batch_size": 2, "options": {"batch_statistics": False}}, False),
    ],
)
def test_episodes_of_several_images_are_for_methods_that_read_batches(table, entry, fine):
    table["entries"] = {"it": entry}
    if fine:
        assert parse_spec(table).entries["it"].batch_size == entry["batch_size"]
    else:
        protocols = "online, reset-per-shift, continual, mixed, correlated"
        with pytest.raises(UsageError, match=f"entry 'it': .*set batch_size = 1, or .*: {protocols}"):
            parse_spec(table)


@pytest.mark.parametrize("task", ["segmentation", "depth"])
def test_maps_have_no_classes_to_correlate(table, task):
    table["models"]["task"] = task
    table["entries"] = {"it": {"method": "source", "protocol": "correlated"}}
    with pytest.raises(UsageError, match=f"correlated goes by the classes of images: not for {task}"):
        parse_spec(table)


@pytest.mark.parametrize("name", ["a-b", "a_b", "a+b", "A1"])
def test_names_of_entries_name_files(table, name):
    table["entries"] = {name: {"method": "source"}}
    assert list(parse_spec(table).entries) == [name]
    table["entries"] = {f"{name}/": {"method": "source"}}
    with pytest.raises(UsageError, match="use letters, digits"):
        parse_spec(table)


@pytest.mark.parametrize("severity", [0, 6])
def test_severities_are_one_to_five(table, severity):
    table["shifts"]["severities"] = [1, 5]
    assert parse_spec(table).shifts.severities == (1, 5)
    table["shifts"]["severities"] = [1, severity]
    with pytest.raises(UsageError, match=f"severities are 1 to 5, not {severity}"):
        parse_spec(table)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("a=1", {"a": 1}),
        ("a.b = [1, 2]", {"a": {"b": [1, 2]}, "old": {"x": 1}}),
        ("a=word", {"a": "word"}),
        ('a="a=b"', {"a": "a=b"}),
        ("old.x=2", {"old": {"x": 2}}),
        ("old.y.z=true", {"old": {"x": 1, "y": {"z": True}}}),
        ("a=", {"a": ""}),
    ],
)
def test_a_value_is_set_where_it_says(assignment, expected):
    table = {"old": {"x": 1}}
    override(table, assignment)
    assert table == {"old": {"x": 1}} | expected


def test_a_value_inside_of_a_value_is_refused():
    with pytest.raises(UsageError, match="x is not a table"):
        override({"old": {"x": 1}}, "old.x.y=2")


def test_a_file_is_read_before_one_that_ships(spec, tmp_path, monkeypatch):
    """Also where it has that one's name; and the message of a mistake says which file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_text(spec.to_toml())
    assert read_spec("digits") == spec
    (tmp_path / "digits").write_text("nme = 1")
    with pytest.raises(UsageError, match=r"^digits: unknown key 'nme'"):
        read_spec("digits")


def test_a_folder_of_an_older_version_goes_on(spec, tmp_path):
    """It wrote fewer defaults; what differs otherwise is named, with the command that goes on."""
    check_same(spec, tmp_path)  # nothing is there yet
    text = spec.to_toml()
    (tmp_path / "spec.toml").write_text(text)
    check_same(spec, tmp_path)
    older = "".join(line for line in text.splitlines(True) if not line.startswith(("compile", "whole")))
    (tmp_path / "spec.toml").write_text(older)
    check_same(spec, tmp_path)
    (tmp_path / "spec.toml").write_text(older.replace("count = 45", "count = 44"))
    with pytest.raises(DiffcernError, match=r"\(data\.count was 44, is 45\).*`diffcern bench \S+spec\.toml --out \S+`"):
        check_same(spec, tmp_path)


def test_models_of_a_command_line():
    assert parse_models({"predictor": "p", "labels": ["a", "b"]}).labels == ("a", "b")
    with pytest.raises(UsageError, match=r"models: unknown key 'predicter'.*'predictor'"):
        parse_models({"predicter": "p"})
