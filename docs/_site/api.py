"""The pages api/*.md: what others may import, by module. Each thing stands on one page, that of its public name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from sphinx.application import Sphinx

import diffcern
from _site.docstrings import inline
from _site.repository import write
from diffcern.jobs import Job, schema
from diffcern.methods.base import Method

PAGES: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {  # page: what it says, module: names
    "diffcern": ("What most programs need; the only names that do not move.", {"diffcern": tuple(diffcern.__all__)}),
    "jobs": (
        "Work as values. `diffcern.classify` and its like are these, carried out at once.",
        {
            "diffcern.jobs": (
                *("Job", "Events", "Silent", "make", "schema"),
                *("Adapt", "Classify", "Match", "Answer", "Purify", "Align", "Bench"),
                *("TrainPrior", "TrainPredictor", "TrainMae", "TrainTextPrior", "TrainClip", "TrainAnswerer"),
            ),
            "diffcern.jobs.rows": ("Table",),
            "diffcern.jobs.purify": ("Folder",),
            "diffcern.jobs.align": ("Aligned",),
            "diffcern.jobs.bench": ("RunResult",),
        },
    ),
    "methods": (
        "One class each, see the pages of the methods for equations and options.",
        {
            "diffcern.methods.base": ("Method", "Weights"),
            "diffcern.methods": (
                *("Source", "BatchNormAdapt", "Tent", "Memo", "TTTMAE", "TPT"),
                *("AutoContrast", "GreyWorld", "RandomViews"),
                *("DiffusionTTA", "DiffusionClassifier", "Prototypes", "Canonical", "Dusa"),
                *("DiffPure", "DDA", "GDA", "SDA", "SDAWithTTA"),
                *("method_class", "needs", "reads_batch", "checked_options"),
            ),
            "diffcern.attacks": ("PGD", "undefended", "through", "scored", "evaluations"),
        },
    ),
    "priors": (
        "Frozen diffusion models behind one interface, see [priors](../priors.md).",
        {
            "diffcern.priors": ("TextPrior", "NativePrior"),
            "diffcern.likelihood": ("denoising_error", "Score", "ConditionGradient"),
            "diffcern.evidence": ("Evidence", "evidence"),
            "diffcern.familiarity": ("strangeness", "threshold"),
        },
    ),
    "predictors": (
        "Whatever is to be made robust. `diffcern.Predictor` and `diffcern.load_predictor` are on the first page.",
        {
            "diffcern.predictors.clip": ("ZeroShot",),
            "diffcern.predictors.question_answering": ("Answerer", "load_answerer"),
        },
    ),
    "tasks": (
        "How what a predictor answers becomes a condition.",
        {"diffcern.tasks": ("Task", "Segmentation", "Depth", "task_of")},
    ),
    "data": (
        "Images with ids and, where known, targets; see [files](../files.md).",
        {
            "diffcern.data": (
                *("Dataset", "Sample", "Batch", "Subset", "subset", "collate", "readable"),
                *("load_pairs", "load_questions", "MatchingExample", "Question"),
                *("decode", "encode_png", "is_image", "check_pixels", "UnreadableImage"),
            )
        },
    ),
    "run": (
        "Specifications and how they are carried out; `diffcern.bench` is the short form.",
        {
            "diffcern.run.spec": ("Spec", "Data", "Models", "Shifts", "Entry", "read_spec", "parse_spec"),
            "diffcern.run.executors": ("Executor", "InProcess", "Processes"),
            "diffcern.run.protocols": ("stream", "correlated"),
        },
    ),
    "report": (
        "A report is made of records alone.",
        {"diffcern.report": ("summarise", "write_summary", "write_report", "print_table")},
    ),
}


TABLE = "   .. list-table::\n      :header-rows: 1\n      :widths: 20 20 60"
DATA = {"METHODS": "The methods' classes by name, as a command line, a specification and ``diffcern.adapt`` name them."}


def page(name: str) -> str:
    said, modules = PAGES[name]
    title = "diffcern" if name == "diffcern" else f"diffcern.{name}"
    parts = [f"# {title}\n\n{said}\n"]
    for module, names in modules.items():
        chosen = [f".. py:currentmodule:: {module}"]
        chosen += [described(module, each) for each in names]
        parts.append("```{eval-rst}\n" + "\n".join(chosen) + "\n```\n")
    return "\n".join(parts)


def described(module: str, name: str) -> str:
    found = getattr(import_module(module), name)
    if isinstance(found, type):
        kind = "autoexception" if issubclass(found, BaseException) else "autoclass"
        inherited = issubclass(found, (Job, Method)) and found not in (Job, Method)  # what all of these have
        members = "" if inherited else "   :members:\n"
        return f".. {kind}:: {module}.{name}\n{members}" + (
            fields(found) if inherited and issubclass(found, Job) else ""
        )
    if callable(found):
        return f".. autofunction:: {module}.{name}\n"
    return f".. py:data:: {module}.{name}\n\n   {DATA[name]}\n"


def fields(job: type[Job]) -> str:
    """What a job is made of, from its own schema: first what must be given."""
    found = schema(job)
    needed = found.get("required", [])
    rows = []
    for name, field in sorted(found["properties"].items(), key=lambda item: item[0] not in needed):
        default = "must be given" if name in needed else f"``{field.get('default', {})!r}``"
        rows.append(f"      * - ``{name}``\n        - {default}\n        - {inline(field.get('description', ''))}")
    head = "      * - field\n        - default\n        - meaning"
    return "\n" + "\n".join([TABLE, "", head, *rows]) + "\n"


def write_pages(app: Sphinx) -> None:
    for name in PAGES:
        write(Path(app.srcdir, "api", f"{name}.md"), page(name))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
