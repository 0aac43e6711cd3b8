"""Reports on masks and depths: numbers against torchmetrics and brute force, units, and pictures."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from diffcern.data.maps import encode_depth, encode_mask, palette
from diffcern.errors import DiffcernError
from diffcern.kinds import KINDS
from diffcern.report import print_table, summarise, write_report
from diffcern.report.maps import EACH, areas_of, build_maps, class_colours
from diffcern.report.records import load
from diffcern.report.wording import findings, verdict

from .conftest import ENTRIES, read, write

NAMES = ("sky", "road", "car", "tree")
SHIFTS = ("fog", "snow")
CELLS = [("clean", 0), *((shift, 3) for shift in SHIFTS)]
NOISE = {"source": 0.5, "tent": 0.45, "diffusion-tta": 0.2}  # share of a shifted image's pixels that are anything
SIDE = 6


def areas(answer: torch.Tensor, truth: torch.Tensor) -> list[float]:
    parts = (answer[answer == truth], answer, truth)
    return torch.cat([torch.bincount(part.flatten(), minlength=len(NAMES)) for part in parts]).double().tolist()


class Masks:
    """A run folder of segmentation with the masks that its records are made of: `answers[entry, shift][id]`."""

    def __init__(self, path: Path, n: int = 30) -> None:
        self.path = path
        rng = torch.Generator().manual_seed(0)
        self.truths = {f"{i:03d}": torch.randint(0, 4, (SIDE, SIDE), generator=rng) for i in range(n)}
        self.answers: dict[tuple[str, str], dict[str, torch.Tensor]] = defaultdict(dict)
        records, pictures = [], []
        for entry in ENTRIES:
            for shift, severity in CELLS:
                for id, truth in self.truths.items():
                    share = 0.1 if shift == "clean" else NOISE[entry["entry"]]
                    anything = torch.randint(0, 4, truth.shape, generator=rng)
                    answer = torch.where(torch.rand(truth.shape, generator=rng) < share, anything, truth)
                    self.answers[entry["entry"], shift][id] = answer
                    key = {"entry": entry["entry"], "shift": shift, "severity": severity, "id": id}
                    records.append(record(key, areas(answer, truth)))
                    if id < "006":
                        pictures.append(key | {"png": encode_mask(answer)})
        write(path / "answers" / "0.parquet", pictures)
        truths = [{"id": id, "png": encode_mask(truth)} for id, truth in self.truths.items() if id < "006"]
        describe(path, "segmentation", n, records, truths)
        (path / "classes.json").write_text(json.dumps(NAMES))


def record(key: dict[str, Any], statistics: list[float]) -> dict[str, Any]:
    absent: dict[str, Any] = {"target": -1, "prediction": -1, "probabilities": [], "loss_trace": []}
    cost = {"nfe_forward": 80 if key["entry"] == "diffusion-tta" else 0, "nfe_backward": 0}
    return key | absent | cost | {"method": key["entry"], "dataset": "scenes", "index": 0, "statistics": statistics}


def describe(path: Path, task: str, n: int, records: list[dict[str, Any]], truths: list[dict[str, Any]]) -> None:
    write(path / "records" / "0.parquet", records)
    write(path / "truths.parquet", truths)
    image = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (200, 0, 0)).save(image, "PNG")
    pictures = {"image": image.getvalue(), "clean": image.getvalue()}
    examples = [{"shift": s, "severity": v, "id": row["id"], **pictures} for s, v in CELLS for row in truths]
    write(path / "examples.parquet", examples)
    (path / "entries.json").write_text(json.dumps(ENTRIES))
    (path / "plan.json").write_text(json.dumps({"task": task, "images": n, "conditions": CELLS}))


def depths(path: Path, n: int = 12) -> Path:
    """A run folder of depth: AbsRel and RMSE of diffusion-tta are half of source's, its delta and SSIM higher; tent is
    as source."""
    records, pictures = [], []
    truth = torch.linspace(1, 8, SIDE * SIDE).reshape(SIDE, SIDE)
    truth[0, :2] = 0  # unknown
    for entry in ENTRIES:
        good = entry["entry"] == "diffusion-tta"
        for shift, severity in CELLS:
            for i in range(n):
                key = {"entry": entry["entry"], "shift": shift, "severity": severity, "id": f"{i:03d}"}
                own = np.random.default_rng([i, severity, good]).uniform(0, 0.02, 4)
                base = np.array([0.8, 0.1, 0.5, 0.9] if good else [0.6, 0.2, 1.0, 0.7])
                records.append(record(key, [*(base + own), 1.0]))
                if i < 6:
                    pictures.append(key | {"png": encode_depth(truth * (1 if good else 3))})
    write(path / "answers" / "0.parquet", pictures)
    describe(path, "depth", n, records, [{"id": f"{i:03d}", "png": encode_depth(truth)} for i in range(6)])
    return path


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Masks:
    """With its report; tests only read it."""
    run = Masks(tmp_path_factory.mktemp("report") / "run")
    write_report(run.path)
    return run


def pick(rows: list[dict[str, Any]], entry: str, shift: str, metric: str) -> dict[str, Any]:
    (row,) = [r for r in rows if (r["entry"], r["shift"], r.get("metric")) == (entry, shift, metric)]
    return row


def expected(answers: dict[str, torch.Tensor], truths: dict[str, torch.Tensor]) -> dict[str, float]:
    ids = sorted(answers)
    both = torch.stack([answers[i] for i in ids]), torch.stack([truths[i] for i in ids])
    count = len(NAMES)
    return {
        "mean_iou": MulticlassJaccardIndex(count, average="macro")(*both).item(),
        "mean_class_accuracy": MulticlassAccuracy(count, average="macro")(*both).item(),
        "pixel_accuracy": MulticlassAccuracy(count, average="micro")(*both).item(),
    }


def test_a_cells_metrics_are_torchmetrics_over_the_union_of_its_images(masks: Masks) -> None:
    rows = summarise(masks.path)
    for (entry, shift), answers in masks.answers.items():
        for metric, value in expected(answers, masks.truths).items():
            row = pick(rows, entry, shift, metric)
            assert row["value"] == pytest.approx(value, abs=1e-6)
            assert row["ci_low"] < row["value"] < row["ci_high"]
            assert row["n"] == 30


def test_means_and_differences_are_of_the_cells_metrics(masks: Masks) -> None:
    rows = summarise(masks.path)
    for metric in ("mean_iou", "pixel_accuracy"):
        mine, source = ([pick(rows, e, s, metric)["value"] for s in SHIFTS] for e in ("diffusion-tta", "source"))
        mean = pick(rows, "diffusion-tta", "mean", metric)
        assert mean["value"] == pytest.approx(np.mean(mine))
        assert mean["difference_to_source"] == pytest.approx(np.mean(mine) - np.mean(source))
        assert mean["difference_low"] < mean["difference_to_source"] < mean["difference_high"]
        assert pick(rows, "source", "mean", metric)["difference_to_source"] is None


def test_intervals_are_those_of_a_bootstrap_over_images(masks: Masks) -> None:
    """By brute force: another generator, and the masks themselves."""
    rng, ids = np.random.default_rng(5), sorted(masks.truths)
    table = {
        key: torch.tensor([areas(answers[i], masks.truths[i]) for i in ids]).numpy()
        for key, answers in masks.answers.items()
    }
    metric = KINDS["segmentation"].metrics[0]
    means, changes = [], []
    for _ in range(2000):
        picks = rng.integers(0, len(ids), len(ids))
        mine, source = (
            np.mean([metric.of(table[e, s][picks].sum(0)) for s in SHIFTS]) for e in ("diffusion-tta", "source")
        )
        means.append(mine)
        changes.append(mine - source)
    row = pick(summarise(masks.path), "diffusion-tta", "mean", "mean_iou")
    # 2000 resamples on either side place a bound to within about 5 % of its distance, each
    for found, draws in (("ci", means), ("difference", changes)):
        low, high = np.percentile(draws, [2.5, 97.5])
        assert (row[f"{found}_low"], row[f"{found}_high"]) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_objects_of_the_first_metric_come_first_and_all_have_the_same_keys(masks: Masks) -> None:
    rows = summarise(masks.path)
    size = len(ENTRIES) * (len(CELLS) + 1)
    assert [row["metric"] for row in rows] == [m.name for m in KINDS["segmentation"].metrics for _ in range(size)]
    assert len({tuple(row) for row in rows}) == 1
    cells = [[(row["entry"], row["shift"], row["severity"]) for row in rows[i : i + size]] for i in (0, size)]
    assert cells[0] == cells[1]


def test_an_equal_entry_differs_by_exactly_nothing_and_others_on_shared_images(tmp_path: Path) -> None:
    run = Masks(tmp_path)
    records = [row for row in read(run.path) if row["entry"] == "source"]
    twin = [row | {"entry": "twin"} for row in records]
    tent = [r for r in read(run.path) if r["entry"] == "tent" and (r["shift"] != "fog" or r["id"] < "010")]
    write(run.path / "records" / "0.parquet", [*records, *twin, *tent])
    rows = summarise(run.path)
    keys = ("difference_to_source", "difference_low", "difference_high")
    assert all(row[key] == 0 for row in rows if row["entry"] == "twin" for key in keys)
    fog = pick(rows, "tent", "fog", "mean_iou")
    few = {entry: {i: a for i, a in run.answers[entry, "fog"].items() if i < "010"} for entry in ("tent", "source")}
    change = expected(few["tent"], run.truths)["mean_iou"] - expected(few["source"], run.truths)["mean_iou"]
    assert fog["difference_to_source"] == pytest.approx(change, abs=1e-6)
    assert (fog["n"], fog["complete"]) == (10, False)
    text = write_report(run.path).read_text()
    assert "Incomplete: 8 of 12 cells" in text  # of each cell once; four of diffusion-tta's and tent's on fog are short


def test_images_without_a_truth_do_not_count(tmp_path: Path) -> None:
    run = Masks(tmp_path)
    records = read(run.path)
    write(run.path / "records" / "0.parquet", [r | {"statistics": []} if r["id"] >= "020" else r for r in records])
    row = pick(summarise(run.path), "source", "fog", "mean_iou")
    known = {i: a for i, a in run.answers["source", "fog"].items() if i < "020"}
    assert row["n"] == 20
    assert row["value"] == pytest.approx(expected(known, run.truths)["mean_iou"], abs=1e-6)
    write(run.path / "records" / "0.parquet", [r | {"statistics": []} for r in records])
    rows = summarise(run.path)
    assert len(rows) == len(ENTRIES) * (len(CELLS) + 1)
    assert not any("value" in row for row in rows)
    assert "No targets are known" in write_report(run.path).read_text()


def test_the_page_names_its_metrics_with_their_units(masks: Masks, tmp_path: Path) -> None:
    page = (masks.path / "report.html").read_text()
    for text in ("Mean IoU per shift", "What mean IoU costs", "Mean IoU over 2 shifts", "Mean IoU in percent"):
        assert text in page
    for text in ("mean class accuracy, % ↑<br>clean", "pixel accuracy, % ↑<br>shifted (mean)"):
        assert text in page
    assert f"{100 * pick(summarise(masks.path), 'tent', 'mean', 'pixel_accuracy')['value']:.1f}" in page
    assert "Is confidence honest?" not in page
    assert "Wilson" not in page
    page = write_report(depths(tmp_path)).read_text()
    for text in ("δ &lt; 1.25 per shift", "AbsRel ↓<br>clean", "RMSE, m ↓<br>shifted (mean)", "SSIM ↑<br>clean"):
        assert text in page
    assert "ccuracy" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_less_is_better_where_it_is(tmp_path: Path) -> None:
    page = write_report(depths(tmp_path)).read_text()
    section = page[page.index('id="others"') : page.index('id="plots"')]
    row = section[section.index("diffusion-tta") :]
    assert row.count('class="num heat better marked"') == 6  # three metrics, clean and shifted
    assert "marked" not in section[: section.index("diffusion-tta")]
    assert re.search(r"−0\.\d{3}<br>\[−0\.\d{3}, −0\.\d{3}\]", row)  # AbsRel falls
    rows = summarise(tmp_path)
    assert pick(rows, "diffusion-tta", "mean", "rmse")["difference_high"] < 0
    out = io.StringIO()
    print_table(rows, Console(file=out, width=120, force_terminal=True))
    line = next(line for line in out.getvalue().split("other metrics")[1].splitlines() if "diffusion-tta" in line)
    assert line.count("\x1b[1m") == 6  # bold


def test_the_terminal_tells_the_metric_and_the_others(masks: Masks) -> None:
    summary = summarise(masks.path)
    out = io.StringIO()
    print_table(summary, Console(file=out, width=120))
    text = out.getvalue()
    assert "scenes, mean IoU in %, 30 images" in text
    assert "After a mean IoU: its 95 % interval" in text
    after = text.split("other metrics")[1]
    assert "pixel accuracy, % ↑" in " ".join(after.split())
    assert "tent†" in after
    for scope in ("clean", "mean"):
        assert f"{100 * pick(summary, 'diffusion-tta', scope, 'mean_class_accuracy')['value']:.1f}" in after


def test_words_name_the_metric(masks: Masks) -> None:
    summary = summarise(masks.path)
    value = 100 * pick(summary, "diffusion-tta", "mean", "mean_iou")["value"]
    assert verdict(summary).startswith(f"diffusion-tta: mean IoU {value:.1f} % over 2 shifts, +")
    assert all("accuracy" not in text for text in findings(summary))


def test_pictures_of_every_shift_with_each_images_own_metric(masks: Masks) -> None:
    run = load(masks.path)
    maps = build_maps(run)
    assert maps is not None
    assert [(row.shift, row.severity) for row in maps.rows] == [cell for cell in run.conditions for _ in range(EACH)]
    assert len({row.id for row in maps.rows}) == 6  # each shift goes on in the list
    for row in maps.rows:
        assert list(row.answers) == [entry["entry"] for entry in ENTRIES]
        for entry, picture in row.answers.items():
            answer = masks.answers[entry, row.shift][row.id]
            single = {row.id: answer}
            assert picture.value == pytest.approx(expected(single, masks.truths)["mean_iou"], abs=1e-6)
            assert (pixels(picture.uri) == answer.numpy()).all()
            assert picture.pixelated
    assert maps.classes == [(n, "#{:02x}{:02x}{:02x}".format(*c)) for n, c in zip(NAMES, palette(), strict=False)]
    page = (masks.path / "report.html").read_text()
    assert page.count('<div class="maps">') == 6
    assert f"<strong>{100 * maps.rows[0].answers['source'].value:.1f}</strong>" in page
    assert not re.search(r"https?://|@import|url\((?!#)", page)


def test_depths_are_coloured_on_the_truths_scale(tmp_path: Path) -> None:
    maps = build_maps(load(depths(tmp_path)))
    assert maps is not None
    row = maps.rows[0]
    truth, same, thrice = (pixels(p.uri) for p in (row.truth, row.answers["diffusion-tta"], row.answers["source"]))
    assert (truth == same).all()
    assert (truth[0, :2] == 0).all()  # unknown
    assert truth[truth > 0].min() == 1
    assert truth.max() == 255
    assert (np.diff(truth.ravel()[2:].astype(int)) >= 0).all()  # ever farther
    assert thrice[-1, 0] == 255  # beyond the truth's own
    assert row.scale == "1.4 to 8.0 m"
    assert maps.classes == []


def test_without_pictures_there_is_no_gallery(tmp_path: Path) -> None:
    run = Masks(tmp_path)
    (run.path / "truths.parquet").unlink()
    assert build_maps(load(run.path)) is None
    assert "Before and after" not in write_report(run.path).read_text()


def test_a_large_mask_is_reduced_without_mixing_classes(tmp_path: Path) -> None:
    run = Masks(tmp_path, n=1)
    large = torch.zeros(600, 300, dtype=torch.long)
    large[::2] = 3
    write(run.path / "truths.parquet", [{"id": "000", "png": encode_mask(large)}])
    maps = build_maps(load(run.path))
    assert maps is not None
    shown = pixels(maps.rows[0].truth.uri)
    assert shown.shape == (224, 112)
    assert set(np.unique(shown)) <= {0, 3}


def test_a_task_from_the_future_is_refused(masks: Masks, tmp_path: Path) -> None:
    run = Masks(tmp_path, n=1)
    (run.path / "plan.json").write_text(json.dumps({"task": "poetry"}))
    with pytest.raises(DiffcernError, match="the task 'poetry', which this version does not know"):
        load(run.path)


def pixels(uri: str) -> np.ndarray:
    """The indices of an image with a palette."""
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert image.mode == "P"
    return np.asarray(image)


def test_the_legend_names_what_only_answers_show(tmp_path):
    run = load(Masks(tmp_path).path)
    truth, answer = torch.zeros(4, 4, dtype=torch.long), torch.full((4, 4), 2)
    answer[0] = 255  # void
    pngs = [encode_mask(truth), encode_mask(answer)]
    found = class_colours(run, pngs[:1], areas_of(pngs))
    assert [name for name, _ in found] == ["sky", "car", "void"]
    assert len({colour for _, colour in found}) == 3
