"""How the options in the specifications were chosen: candidates side by side on images that no figure uses.

    python benchmarks/tune.py [--spec digits] [--count 60] [--workers 2] [--only diffusion-tta]
    python benchmarks/tune.py --spec specs/cifar10.toml --count 40 --shifts clean gaussian_noise fog pixelate
    python benchmarks/tune.py --spec specs/camvid.toml --dataset parquet:../shared/data/camvid/val.parquet --count 20

Digits and scenes have a validation split, and --dataset names that of other data; without one it takes images beyond
the first 1,000 of the test set, and reports use those. Runs again continue.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from diffcern.methods.presets import preset_options
from diffcern.report import print_table, write_summary
from diffcern.run.evaluate import evaluate
from diffcern.run.executors import Processes
from diffcern.run.spec import Entry, Shifts, Spec, read_spec

RESERVED = 1000  # test images for reports
ONLINE = {"protocol": "online", "batch_size": 50}
STREAM = {"protocol": "online"}  # image by image, with the source's statistics
RATES = (1e-3, 1e-2, 3e-2)


def rivals(*changes: dict[str, object], batches: Sequence[float] = RATES, **common: object) -> list[dict]:
    """Candidates of a method that lowers an entropy: rates of Adam for batches and for single images; then changes."""
    adam = {"optimizer": "adam", **common}
    return [
        *({**ONLINE, "options": {**adam, "learning_rate": rate}} for rate in batches),
        *({**STREAM, "options": {**adam, "learning_rate": rate / 30, "statistics": "source"}} for rate in batches),
        *({**ONLINE, "options": {**adam, "learning_rate": 1e-2, **change}} for change in changes),
    ]


SOURCE = {"source_images": "embedded:digits/train", "fisher_count": 200}


def tta(**changes: object) -> dict[str, object]:
    """Options of Diffusion-TTA around the "small" preset."""
    return {**preset_options("diffusion-tta", "small"), **changes}


def raced(**changes: object) -> dict[str, object]:
    """Options of Diffusion Classifier around the "small" preset."""
    return {**preset_options("diffusion-classifier", "small"), "weighting": "min-snr", **changes}


CANDIDATES: dict[str, list[dict]] = {
    "diffusion-tta": [
        *({"options": tta(learning_rate=rate)} for rate in (0.01, 0.02, 0.05, 0.1)),
        *({"options": tta(temperature=temperature)} for temperature in (1.0, 4.0)),
        *({"options": tta(gate=gate)} for gate in (1.5, 2.0)),
        *({"options": tta(familiar=share)} for share in (0.9, 0.97, 0.99)),
        {"options": tta(weighting="v")},
        *({"options": tta(weighting="min-snr", learning_rate=rate)} for rate in (0.05, 0.2, 0.5, 1.0)),
        {"options": tta(weighting="min-snr", learning_rate=1.0, draws=16, span=[0.3, 1.0])},
        {"options": tta(parameters="norm")},
        *(
            {**ONLINE, "options": tta(learning_rate=rate, temperature=1.0, steps=steps, batch_statistics=True)}
            for steps, rate in ((1, 0.05), (3, 0.05), (3, 0.2))
        ),
    ],
    "tent": rivals(),
    "eta": rivals({"alike": 0.05}, {"alike": 0.8}, alike=0.4),
    "eata": [
        {**ONLINE, "options": {"optimizer": "adam", "learning_rate": 1e-2, "alike": 0.4, "beta": beta, **SOURCE}}
        for beta in (1.0, 30.0, 2000.0)
    ],
    "sar": rivals({"recovery": 0.05}, {"recovery": 0.2}, recovery=0.0),
    "deyo": rivals({"drop": 0.1}, {"drop": 0.5}),
    "roid": [{**ONLINE, "options": {"optimizer": "adam", "learning_rate": rate, "mirror": False}} for rate in RATES],
    "cotta": rivals({"threshold": 0.72}, {"restore": 0.001}, {"keep": 0.99}, views=8, mirror=False),
    "memo": [{"options": {"views": 32, "learning_rate": rate}} for rate in (2.5e-4, 1e-3, 5e-3, 0.02, 0.05)],
    "dusa": [
        {**ONLINE, "options": {"learning_rate": rate, "timestep": time}} for time in (0.1, 0.5) for rate in (1e-5, 1e-4)
    ],
    "diffpure": [
        {"options": {"start": start, "steps": 10, "solver": solver, "ensemble": ensemble}}
        for start in (99, 199, 399, 599)
        for solver, ensemble in (("ddpm", "none"), ("ddpm", "sum"), ("dpm-solver++", "sum"))
    ],
    "dda": [
        {"options": {"start": start, "steps": 20, "weight": weight, "form": form}}
        for start in (199, 399, 599, 799)
        for weight, form in ((0.1, "estimate"), (0.2, "estimate"), (0.4, "estimate"), (0.2, "through"))
    ],
    "gda": [
        {"options": {"start": start, "steps": 20, "form": "estimate", "entropy": entropy, "mse": mse}}
        for start in (199, 399)
        for entropy, mse in ((0.0, 100.0), (0.01, 100.0), (0.1, 100.0), (1.0, 100.0))
    ],
    "diffusion-classifier": [
        *({"options": {"draws": 16, "weighting": name, "stop": ""}} for name in ("eps", "x0", "v", "min-snr")),
        *({"options": {"draws": 64, "weighting": name, "stop": ""}} for name in ("x0", "v", "min-snr")),
        {"options": raced(span=[0.4, 1.0])},
        *({"options": raced(draws=128, span=[0.3, 1.0], z=z)} for z in (2.0, 2.5, 3.0)),
    ],
}


def maps_tta(**changes: object) -> dict[str, object]:
    """Options of Diffusion-TTA around the "small" preset of classification, at temperature 1."""
    return {**preset_options("diffusion-tta", "small"), "temperature": 1.0, **changes}


MAPS: dict[str, list[dict]] = {  # for segmentation and depth
    "diffusion-tta": [
        *({"options": maps_tta(learning_rate=rate)} for rate in (0.01, 0.05, 0.2, 1.0)),
        *({"options": maps_tta(learning_rate=rate, parameters="norm")} for rate in (0.2, 1.0, 5.0)),
        *({"options": maps_tta(learning_rate=rate, optimizer="adam")} for rate in (1e-4, 1e-3)),
        *({"options": maps_tta(learning_rate=0.2, **other)} for other in ({"weighting": "eps"}, {"span": [0.1, 0.6]})),
        *({"options": maps_tta(learning_rate=0.2, temperature=temperature)} for temperature in (2.0, 4.0)),
        {"options": maps_tta(learning_rate=0.2, temperature=2.0, familiar=0.99)},
        *(
            {**ONLINE, "options": maps_tta(learning_rate=rate, steps=steps, batch_statistics=True)}
            for steps, rate in ((1, 0.05), (3, 0.2))
        ),
    ],
    "tent": [{**ONLINE, "options": {"learning_rate": rate}} for rate in (1e-3, 3e-3)],
    "diffpure": [
        {"options": {"start": start, "steps": 10, "solver": "ddpm", "ensemble": ensemble}}
        for start in (99, 199, 399)
        for ensemble in ("none", "sum")
    ],
    "dda": [
        {"options": {"start": start, "steps": 20, "weight": weight, "form": "estimate"}}
        for start in (199, 399, 599)
        for weight in (0.1, 0.2, 0.4)
    ],
}


def tuning_spec(source: str, count: int, shifts: list[str], methods: list[str], dataset: str = "") -> Spec:
    """The specification with the candidates as its entries, on images that it does not report on."""
    spec = read_spec(source)
    if not dataset and spec.data.dataset in ("embedded:digits", "embedded:scenes", "embedded:scenes/test"):
        dataset = spec.data.dataset.removesuffix("/test") + "/validation"
    if dataset:
        data = dataclasses.replace(spec.data, dataset=dataset, count=count)
    else:
        data = dataclasses.replace(spec.data, count=count, skip=RESERVED)
    known = CANDIDATES if spec.models.task == "classification" else MAPS
    entries = {"source": Entry("source")}
    for method in methods or known:
        if method not in known:
            raise SystemExit(f"no candidates for {method} in {spec.models.task}: --only takes {', '.join(known)}")
        fitting = [c for c in known[method] if spec.models.task != "depth" or c["options"].get("temperature", 1) == 1]
        entries |= {f"{method}-{n}": Entry(method, **candidate) for n, candidate in enumerate(fitting)}
    names = tuple(shifts) or spec.shifts.names
    return dataclasses.replace(
        spec, name="tune", data=data, entries=entries, shifts=Shifts(names, spec.shifts.severities)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default="digits")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--shifts", nargs="*", default=[])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=CANDIDATES, default=[])
    parser.add_argument("--dataset", default="", help="the images to choose on")
    parser.add_argument("--out", type=Path, help="default: runs/tune-NAME")
    options = parser.parse_args()
    spec = tuning_spec(options.spec, options.count, options.shifts, options.only, options.dataset)
    out = options.out or Path("runs") / f"tune-{Path(options.spec).stem}"
    evaluate(
        spec,
        out,
        device=torch.device("cpu"),
        executor=Processes(options.workers) if options.workers > 1 else None,
        progress=lambda done, total, what: print(f"\r{done}/{total} {what:40}", end="", flush=True),
    )
    print()
    for name, entry in spec.entries.items():
        print(f"{name:24} {entry.protocol:9} {entry.options}")
    cells = write_summary(out)
    print_table(cells, Console(width=200))
    for cell in cells:
        if cell["shift"] == "mean":
            gain = cell["difference_to_source"]
            print(
                f"{cell['entry']:24} mean {100 * cell['value']:.1f} %  gain {100 * (gain or 0):+.1f}  "
                f"{cell['seconds_per_image']:.3f} s  {cell['nfe_forward']:.0f} evaluations"
            )


if __name__ == "__main__":
    main()
