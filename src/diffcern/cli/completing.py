"""What a shell completes: names that ship, without importing what is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from diffcern.assets import embedded_names
from diffcern.kinds import KINDS

# As `methods.METHODS` and `data.EMBEDDED` have them, which take seconds to import; a test holds them together.
METHODS = (
    *("source", "bn-adapt", "tent", "eta", "eata", "sar", "deyo", "roid", "cotta", "foa"),
    *("memo", "ttt-mae", "tpt", "auto-contrast", "grey-world", "random-views"),
    *("diffusion-tta", "diffusion-classifier", "prototypes", "canonical", "dusa", "diffpure", "dda", "gda"),
    *("sda", "sda-tta"),
)
SPLITS = ("", "/train", "/validation", "/test")
DATA = tuple(f"{name}{end}" for name in ("digits", "digit-pairs", "digit-triples", "scenes") for end in SPLITS)
SPECS = Path(__file__).parents[1] / "specs"
LISTS = ("methods", "priors", "predictors", "datasets", "pairs", "questions", "corruptions")
Names = Callable[[], Sequence[str]]


def embedded(names: Sequence[str]) -> list[str]:
    return [f"embedded:{name}" for name in names]


NAMES: dict[str, Names] = {  # by name of an option
    "prior": lambda: embedded(embedded_names("prior")),
    "generator": lambda: embedded(embedded_names("prior")),
    "predictor": lambda: embedded(embedded_names("predictor")),
    "images": lambda: embedded(DATA),
    "dataset": lambda: embedded(DATA),
    "pairs": lambda: embedded(("scenes",)),
    "questions": lambda: embedded(("scenes",)),
    "method": lambda: METHODS,
    "task": lambda: tuple(KINDS),
    "spec": lambda: sorted(path.stem for path in SPECS.glob("*.toml")),
    "device": lambda: ("auto", "cpu", "cuda", "mps"),
    "dtype": lambda: ("auto", "float32", "bfloat16", "float16"),
    "preset": lambda: ("paper", "small"),
}


def completing(names: Names) -> Callable[[str], list[str]]:
    """For Typer: those of the names that begin as what is typed. Bash takes a colon for the end of a word, and so
    completes behind none: COMP_WORDBREAKS=${COMP_WORDBREAKS//:} says that it is part of a word."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete
