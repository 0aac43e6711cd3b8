"""How the "small" preset was chosen: candidates side by side on the validation split of the digits.

    python benchmarks/tune.py [--count 60] [--workers 2] [--only diffusion-tta] [--out runs/tune]

Reported figures use the test split, which no choice has looked at. Runs again continue.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console

from diffcern.report import print_table, write_summary
from diffcern.run.evaluate import evaluate
from diffcern.run.spec import parse_spec, read_spec

TTA = {"steps": 5, "draws": 16, "strategy": "stratified", "weighting": "x0", "optimizer": "sgd"}
ONLINE = {"protocol": "online", "batch_size": 50}
CANDIDATES: dict[str, list[dict]] = {
    "source": [{}],
    "diffusion-tta": [
        {"options": {**TTA, "learning_rate": 0.05, "temperature": 1.0}},
        *({"options": {**TTA, "learning_rate": rate, "temperature": 2.0}} for rate in (0.02, 0.05, 0.1)),
        *({"options": {**TTA, "learning_rate": 0.05, "temperature": 2.0, "gate": gate}} for gate in (1.5, 2.0)),
        *({"options": {**TTA, "learning_rate": 0.05, "temperature": 2.0, "familiar": f}} for f in (0.9, 0.97, 0.99)),
        {"options": {**TTA, "learning_rate": 0.05, "temperature": 2.0, "weighting": "v"}},
        {"options": {**TTA, "learning_rate": 0.05, "temperature": 2.0, "parameters": "norm"}},
        *(
            {**ONLINE, "options": {**TTA, "steps": steps, "learning_rate": rate, "batch_statistics": True}}
            for steps, rate in ((1, 0.05), (3, 0.05), (3, 0.2))
        ),
    ],
    "tent": [{**ONLINE, "options": {"learning_rate": rate}} for rate in (1e-3, 3e-3)],
    "dusa": [
        {**ONLINE, "options": {"learning_rate": rate, "timestep": time}} for time in (0.1, 0.5) for rate in (1e-5, 1e-4)
    ],
    "diffusion-classifier": [{"options": {"draws": 16, "weighting": name}} for name in ("eps", "x0", "v", "min-snr")],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=CANDIDATES)
    parser.add_argument("--out", type=Path, default=Path("runs/tune"))
    options = parser.parse_args()
    chosen = {"source": CANDIDATES["source"]} | {
        method: candidates for method, candidates in CANDIDATES.items() if options.only in (None, method)
    }
    entries = {
        f"{method}-{number}": {"method": method, **candidate} if method != "source" else {"method": method}
        for method, candidates in chosen.items()
        for number, candidate in enumerate(candidates)
    }
    entries["source"] = entries.pop("source-0")
    shipped = read_spec("digits")
    spec = parse_spec(
        {
            "name": "tune",
            "data": {"dataset": "embedded:digits/validation", "count": options.count},
            "models": {"predictor": shipped.models.predictor, "prior": shipped.models.prior},
            "shifts": {"names": list(shipped.shifts.names), "severities": list(shipped.shifts.severities)},
            "entries": entries,
        }
    )
    evaluate(
        spec,
        options.out,
        device=torch.device("cpu"),
        workers=options.workers,
        progress=lambda done, total, what: print(f"\r{done}/{total} {what:40}", end="", flush=True),
    )
    print()
    for name, entry in spec.entries.items():
        print(f"{name:24} {entry.protocol:9} {entry.options}")
    cells = write_summary(options.out)
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
