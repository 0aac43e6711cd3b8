"""Switches on, for whoever imports this before diffcern, that calls are checked against annotated types and shapes."""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

TASKS = [f"tasks.{name}" for name in ("base", "classification", "depth", "matching", "segmentation")]
CHECKED = ["draws", "likelihood", "priors.base", "sampling", "types", *TASKS]  # whose annotations say shapes

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))  # where a float is asked for, 1 is one
install_import_hook([f"diffcern.{name}" for name in CHECKED], "shape_checks.typechecker")
