"""What a new task takes: a row of `kinds.KINDS` and a class in `tasks/`; commands, methods and reports have it then."""

import json
from dataclasses import replace

import pytest
import torch

from diffcern.kinds import DEPTH, KINDS
from diffcern.methods.diffusion_tta import DiffusionTTA
from diffcern.methods.source import Source
from diffcern.metrics import Metric, per_image
from diffcern.report import summarise
from diffcern.tasks import MAP_TASKS, TASKS, Depth
from diffcern.tasks.base import fitted

ERROR = Metric("nearness_error", "error of nearness", per_image(0), unit="/m", better="lower")
NEARNESS = replace(DEPTH, name="nearness", output="1 / metres [B, h, w]", metrics=(ERROR,), statistics=2)


class Nearness(Depth):
    """How near everything is: one over the depth."""

    kind, name = NEARNESS, NEARNESS.name

    def statistics(self, output, sample):
        if sample.depth is None:
            return []
        known = sample.depth > 0
        return [float((fitted(output, sample.depth)[0].cpu() - 1 / sample.depth)[known].abs().mean()), 1.0]

    def answer(self, output, truth):
        return 1 / fitted(output, truth)[0].cpu()


PREDICTOR = """
import torch
from diffcern import Predictor
def far():
    class Far(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.distance = torch.nn.Parameter(torch.tensor(8.0))
        def forward(self, images):
            return (0.2 * images.mean(1) + 1) / self.distance
    return Predictor(Far(), (), task="nearness", metric=True)
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """In the library these are two lines in two files; methods name their tasks when they are imported."""
    monkeypatch.setitem(KINDS, NEARNESS.name, NEARNESS)
    monkeypatch.setitem(TASKS, NEARNESS.name, Nearness)
    monkeypatch.setitem(MAP_TASKS, NEARNESS.name, Nearness)
    for method in (Source, DiffusionTTA):
        monkeypatch.setattr(method, "tasks", (*method.tasks, NEARNESS.name))
    (tmp_path / "toy_predictor.py").write_text(PREDICTOR)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


SPEC = """
name = "toy"
data = { dataset = "embedded:scenes", count = 3 }
models = { predictor = "toy_predictor:far", prior = "embedded:scenes-depth", task = "nearness" }
[entries.source]
method = "source"
[entries.tta]
method = "diffusion-tta"
options = { steps = 1, draws = 1, adapt_prior = false }
"""


def test_a_task_is_a_row_and_a_class(toy, cli):
    (toy / "toy.toml").write_text(SPEC)
    code, out, err = cli("bench", toy / "toy.toml", "--out", toy / "run", "--device", "cpu")
    assert code == 0, err
    assert "error of nearness" in out
    cells = {cell["entry"]: cell for cell in summarise(toy / "run") if cell["severity"] is not None}
    assert {cell["metric"] for cell in cells.values()} == {"nearness_error"}
    assert 0 < cells["source"]["value"] < 0.5  # nothing in these scenes is nearer than two metres
    assert cells["tta"]["nfe_forward"] > 0
    assert "error of nearness" in (toy / "run" / "report.html").read_text()
    assert json.loads((toy / "run" / "plan.json").read_text())["task"] == "nearness"


def test_its_maps_are_written(toy, cli, tmp_path):
    from diffcern.data import encode_png, load_dataset

    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encode_png(load_dataset("embedded:scenes")[0].image))
    named = (
        "--predictor",
        "toy_predictor:far",
        "--task",
        "nearness",
        "--method",
        "source",
        "--out",
        tmp_path / "o.csv",
    )
    code, _, err = cli("adapt", tmp_path / "images", *named, "--device", "cpu")
    assert code == 0, err
    assert (tmp_path / "o" / "a.png").is_file()
    assert torch.is_tensor(Nearness.decode((tmp_path / "o" / "a.png").read_bytes(), "a"))
