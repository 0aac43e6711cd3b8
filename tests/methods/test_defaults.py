"""The constructors' defaults are what the papers give, and the presets what reported figures were made with.

Numbers are from the sources that the methods' docstrings cite. A run goes on only with the options that it began with,
so a change of one of these is seen by everybody who has records.
"""

import pytest

from diffcern.adapted import adapt
from diffcern.errors import UsageError
from diffcern.kinds import QUESTION_ANSWERING
from diffcern.methods import METHODS
from diffcern.methods.diffusion_tta import PUBLISHED, RATES
from diffcern.methods.options import options_of
from diffcern.methods.presets import PRESETS, over_preset, preset_options
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior

FREE = {"rows", "cache", "aligned", "gains", "source_images"}  # which change no answer, or have no default to speak of
IMAGENET = {"optimizer": "sgd", "learning_rate": 2.5e-4, "momentum": 0.9, "statistics": "batch"}
VOTING = {"copies": 1, "vote": "mean"}
PURIFYING = {"solver": "ddpm", "eta": 0.0, "skip": None}
FEEDBACK = {
    "steps": 5, "draws": 180, "strategy": "uniform", "weighting": "eps", "temperature": 1.0, "familiar": None,
}  # fmt: skip
DEFAULTS = {
    "source": {},
    "bn-adapt": {"source_count": 0.0},
    "tent": {"optimizer": "adam", "learning_rate": 1e-3, "momentum": 0.9, "steps": 1, "statistics": "batch"},
    "eta": {"sure": 0.4, "alike": 0.05, **IMAGENET},
    "eata": {"sure": 0.4, "alike": 0.05, "fisher_count": 2000, "beta": 2000.0, **IMAGENET},
    "sar": {
        "sure": 0.4, "rho": 0.05, "recovery": 0.2, "frozen": ("layer4", "blocks.9", "blocks.10", "blocks.11", "norm"),
        **IMAGENET,
    },
    "deyo": {"sure": 0.5, "centre": 0.4, "drop": 0.3, "patches": 4, **IMAGENET},
    "roid": {
        "tau": 1 / 3, "keep": 0.99, "mirror": True, "optimizer": "sgd", "learning_rate": 2.5e-4, "momentum": 0.9,
    },
    "cotta": {
        "views": 32, "threshold": 0.92, "keep": 0.999, "restore": 0.01, "mirror": True, "optimizer": "adam",
        "learning_rate": 1e-3, "momentum": 0.9, "statistics": "batch",
    },
    "foa": {"source_size": 32, "prompts": 3, "population": 28, "discrepancy": 0.4, "shift": 1.0},
    "memo": {
        "views": 64, "severity": 1, "optimizer": "sgd", "learning_rate": 2.5e-4, "momentum": 0.0, "parameters": "all",
        "source_count": 16.0, "crops": "resized",
    },
    "ttt-mae": {"steps": 20, "masks": 128, "optimizer": "sgd", "learning_rate": 5e-3, "momentum": 0.9},
    "tpt": {
        "template": "a photo of a {}.", "views": 64, "share": 0.1, "steps": 1, "optimizer": "adamw",
        "learning_rate": 5e-3,
    },
    "diffusion-tta": {
        **FEEDBACK, "span": (0.0, 1.0), "resample": True, "optimizer": None, "learning_rate": None, "momentum": 0.9,
        "parameters": "all", "top_k": None, "adapt_prior": None, "prior_learning_rate": None, "gate": None,
        "batch_statistics": False, "source_count": 0.0, "cut": 0.0,
    },
    "diffusion-classifier": {
        "draws": 250, "strategy": "fixed-bank", "weighting": "eps", "norm": "l2", "keep": (), "samples": (),
        "temperature": 1.0, "span": (0.0, 1.0), "view": "centre", "stop": "", "z": 2.0, "start": 3, "risk": None,
        "first": (0.0, 1.0), "shortlist": "", "shortlist_size": 5, "shortlist_draws": 8, "generated": "",
        "class_prior": "uniform",
    },
    "prototypes": {
        "generated": "", "per_class": 64, "steps": 50, "solver": "ddim", "guidance_scale": 1.0, "encoder": "",
        "covariance": "shared", "temperature": 1.0,
    },
    "canonical": {
        "views": ("light", "turn"), "budget": 120, "draws": 16, "low": 0.1, "margin": None, "z": 1.5, "rounds": 0,
        "jacobian": True, "denoise": False, "then": "source", "then_preset": "paper", "familiar": None,
        "then_options": None, "inpaint": False,
    },
    "auto-contrast": {},
    "grey-world": {},
    "random-views": {"views": 16, "turn": 30.0, "light": 1.0},
    "dusa": {
        "timestep": 0.1, "top_k": 4, "random_k": 2, "others": "multinomial", "scale": 1.0, "optimizer": "adam",
        "learning_rate": 1e-5, "momentum": 0.9, "parameters": "all", "adapt_prior": True, "prior_learning_rate": None,
        "stop": "", "z": 2.0, "risk": None, "draws": 8,
    },
    "diffpure": {
        **PURIFYING, "start": 149, "steps": 150, "solver": "reverse-sde", "clip": False, "ensemble": "none", **VOTING,
    },
    "dda": {
        **PURIFYING, "start": 499, "steps": 50, "weight": 6.0, "factor": 4, "border": "zeros", "form": "through",
        "bounded": True, "reference_batch_size": 1, "ensemble": "sum", **VOTING,
    },
    "gda": {
        **PURIFYING, "start": 499, "steps": 50, "form": "through", "scaled": True, "mixed": True, "entropy": 20.0,
        "style": 0.0, "content": 0.0, "mse": 2000.0, "views": 8, "clip": "", "style_source": "a corrupted photo",
        "style_target": "a photo", "content_layer": "", "ensemble": "entropy", **VOTING,
    },
    "sda": {"ensemble": "sum", "skip": None},
    "sda-tta": {
        **FEEDBACK, "feedback": "both", "optimizer": "adam", "learning_rate": 1e-5, "ensemble": "sum", "skip": None,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_the_papers(name):
    defaults = {option: field.default for option, field in options_of(METHODS[name]).model_fields.items()}
    assert {option: value for option, value in defaults.items() if option not in FREE} == DEFAULTS[name]


def test_published_feedback():
    """By what the prior reads: DiT's runs, Stable Diffusion's, those of maps; with the rate beside each optimiser."""
    moves = {read: (value.optimizer, value.adapt_prior) for read, value in PUBLISHED.items()}
    assert moves == {"classes": ("adam", True), "prompts": ("sgd", False), "maps": ("adamw", True)}
    assert RATES == {"adam": 1e-5, "sgd": 5e-3, "adamw": 8e-5}


def test_a_preset_is_the_methods_and_over_it_the_tasks():
    """Options by task stand over those of the preset, one by one; "paper" is the constructors' own."""
    feedback = preset_options("diffusion-tta", "small")
    assert (feedback["draws"], feedback["span"]) == (4, [0.4, 1.0])
    maps = {**feedback, "learning_rate": 0.2, "draws": 16, "span": [0.0, 1.0]}
    assert preset_options("diffusion-tta", "small", "segmentation") == maps
    depth = {"optimizer": "adam", "learning_rate": 1e-4, "temperature": 1.0}
    assert preset_options("sda-tta", "small", "depth") == {**preset_options("sda-tta", "small"), **depth}
    gentle = {**preset_options("dda", "small"), "start": 199, "steps": 20, "weight": 0.4}
    for task in ("segmentation", "depth", QUESTION_ANSWERING):
        assert preset_options("dda", "small", task) == gentle
    assert preset_options("diffusion-tta", "small", QUESTION_ANSWERING) == feedback
    assert all(preset_options(name, "paper", task) == {} for name in METHODS for task in ("depth", QUESTION_ANSWERING))
    assert preset_options("my_package:Method", "small") == {}
    with pytest.raises(UsageError, match=r"unknown preset 'smal'.*'small'"):
        preset_options("source", "smal")


def test_the_small_preset_is_what_was_chosen():
    """By `benchmarks/tune.py`; docs/results.md reports with these."""
    assert list(PRESETS) == ["paper", "small"]
    adam = {"optimizer": "adam", "learning_rate": 1e-2}
    feedback = {
        "steps": 5, "draws": 16, "strategy": "stratified", "weighting": "x0", "optimizer": "sgd",
        "learning_rate": 0.05, "temperature": 2.0,
    }  # fmt: skip
    chosen = {
        "diffusion-tta": {**feedback, "draws": 4, "span": [0.4, 1.0], "adapt_prior": False},
        "sda-tta": feedback,
        "prototypes": {"per_class": 16, "steps": 10},
        "canonical": {"then_preset": "small", "denoise": True, "inpaint": True, "budget": 180},
        "dusa": {"adapt_prior": False, "others": "uniform"},
        "memo": {"views": 32, "learning_rate": 1e-3, "crops": "none"},
        "eta": {**adam, "alike": 0.4},
        "eata": {**adam, "alike": 0.4, "beta": 1.0, "fisher_count": 200},
        "sar": {**adam, "recovery": 0.0},
        "deyo": adam,
        "roid": {**adam, "mirror": False},
        "cotta": {"views": 8, "mirror": False},
        "diffpure": {"start": 199, "steps": 1, "solver": "one-shot", "clip": True},
        "dda": {"start": 399, "steps": 3, "weight": 0.1, "form": "estimate", "border": "inside", "bounded": False},
        "gda": {
            "start": 399, "steps": 20, "form": "estimate", "scaled": False, "mixed": False, "entropy": 0.01,
            "mse": 100.0,
        },
        "diffusion-classifier": {
            "draws": 64, "weighting": "x0", "strategy": "van-der-corput", "stop": "race", "first": [0.4, 1.0],
        },
    }  # fmt: skip
    assert chosen == {name: dict(method.small) for name, method in METHODS.items() if method.small}


@pytest.mark.parametrize("name", METHODS)
def test_what_was_added_is_an_option_at_a_value_that_is_its_default(name):
    fields = options_of(METHODS[name]).model_fields
    for option, value in METHODS[name].added.items():
        assert fields[option].default == value


def test_steps_that_a_single_step_would_not_take_are_refused():
    """`diffcern align --method diffpure --set steps=25` purified in one step, and did not say so."""
    with pytest.raises(UsageError, match=r"single step \(solver one-shot\), and steps=25 would.*solver=ddpm"):
        over_preset("diffpure", "small", {"steps": 25})
    digits = load_predictor("embedded:digits"), load_prior("embedded:digits")
    with pytest.raises(UsageError, match=r"then = diffpure in the preset 'small' is a single step"):
        adapt(*digits, "canonical", then="diffpure", then_preset="small", then_options={"steps": 25})
    assert over_preset("diffpure", "small", {"steps": 25, "solver": "ddpm"})["steps"] == 25
    assert over_preset("diffpure", "small", {"steps": 1})["solver"] == "one-shot"
    assert over_preset("diffpure", "paper", {"steps": 25}) == {"steps": 25}
    assert over_preset("dda", "small", {"steps": 25})["steps"] == 25
