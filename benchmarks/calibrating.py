"""Are the probabilities of Diffusion Classifier honest on images that no temperature was fitted on?

    python benchmarks/calibrating.py [--fitted DATASET --told DATASET --prior embedded:digits]

A temperature (and numbers for classes besides) is fitted on one split and judged on another.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import numpy as np
import torch

from diffcern.calibration import calibrated, calibration_error, fit, interval, risk_of_half
from diffcern.jobs.base import make
from diffcern.jobs.calibrate import Calibrate


def answers(dataset: str, prior: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """Logits and true classes."""
    with tempfile.TemporaryDirectory() as folder:
        asked = {"images": dataset, "prior": prior, "keep": folder, "options": options}
        rows = make(Calibrate, asked).carry_out(None).good
    return np.array([row["log_probabilities"] for row in rows]), np.array([row["target"] for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fitted", default="embedded:digits/validation")
    parser.add_argument("--told", default="embedded:digits")
    parser.add_argument("--prior", default="embedded:digits")
    options = parser.parse_args()
    torch.set_num_threads(2)
    variants: dict[str, dict[str, Any]] = {
        "race (preset)": {},
        "all draws": {"stop": ""},
    }
    print(f"{'':40}{'temperature':>12}{'right, %':>10}{'calibration error, points':>30}{'surer half wrong, %':>22}")
    for name, asked in variants.items():
        known, held = (answers(dataset, options.prior, asked) for dataset in (options.fitted, options.told))
        for form, per_class in (("as it is", None), ("temperature", False), ("temperature and classes", True)):
            temperature, bias = (1.0, ()) if per_class is None else fit(*known, per_class)
            p, truth = calibrated(held[0], temperature, bias), held[1]
            low, high = interval(p, truth)
            error = f"{100 * calibration_error(p, truth):.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            right, risk = 100 * (p.argmax(1) == truth).mean(), 100 * risk_of_half(p, truth)
            print(f"{name + ', ' + form:40}{temperature:12.3g}{right:10.1f}{error:>30}{risk:22.1f}", flush=True)
    print(f"fitted on {len(known[1])} images of {options.fitted}, judged on {len(held[1])} of {options.told}")


if __name__ == "__main__":
    main()
