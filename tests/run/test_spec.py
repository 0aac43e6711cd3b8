import pytest

from diffcern.data.corruptions import COMMON
from diffcern.errors import UsageError
from diffcern.run.spec import override, parse_spec, read_spec


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
