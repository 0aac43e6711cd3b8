"""Changes that no test can notice, each with its reason. They are looked at only where a mutant is alive."""

from __future__ import annotations

import re

from mutating.changes import Mutant

ANY = ""
WITHOUT: list[tuple[str, str, str]] = [  # module, pattern, reason: lines that are the same without what it matches
    (ANY, r",? ?\bdevices?=(None|[\w.]+|\[\])", "all is on the CPU"),
    (ANY, r"(?<=\.to\()(None|[\w.]*device)", "all is on the CPU"),
    (ANY, r",? ?strict=\w+", "the lengths are equal by construction"),
    (ANY, r"rows: \w+ = \d+", "how much is done at once: memory and speed"),
    ("methods/purification", r'"\w+"(?=:)', "a name in a digest: any other tells the settings apart as well"),
    ("run/bench", r'(?<=own\[)"\w+"', "a name in a digest: any other tells the options apart as well"),
]
LINES: dict[tuple[str, str], str] = {  # module, the line after the change: reason
    ("weightings", "weighting(given)(alpha, sigma, None)"): "prediction kinds are weightings that do not read the time",
    ("methods/diffusion_tta", "RATES.get(optimizer, )"): "of an unknown optimiser, which is refused before its rate",
    ("methods/diffusion_classifier", "stable=False"): "differs for exact ties alone",
    ("run/batch", "-(+len(waiting) // 2)"): "a slice to -(n // 2) ends at n - n // 2, the same half rounded up",
    ("methods/tent", '(predictor), "XXnormXX")'): "which weights move is chosen in init; only LoRA changes the copy",
    ("methods/tent", '(predictor), "NORM")'): "which weights move is chosen in init; only LoRA changes the copy",
    ("run/bench", "self._room = None"): "set again with the first shift, before it is read",
    ("draws", "span: tuple[float, float] = (1.0, 1.0), numbers"): "a default that is only checked, and is in order too",
}


def reason(mutant: Mutant, name: str) -> str:
    """Why the change changes nothing; "" where it does, as far as is known."""
    for (module, part), why in LINES.items():
        if module == name and part in mutant.after and part not in mutant.before:
            return why
    for module, pattern, why in WITHOUT:
        if module in (ANY, name) and _same(mutant, pattern):
            return why
    return ""


def _same(mutant: Mutant, pattern: str) -> bool:
    before, after = (
        re.sub(pattern, "", line).replace(" ", "").replace(",)", ")") for line in (mutant.before, mutant.after)
    )
    return before == after and mutant.before != mutant.after
