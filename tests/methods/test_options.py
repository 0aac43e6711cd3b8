"""Options that no method means anything by, and names of methods that are none, are refused before any work."""

from __future__ import annotations

import math
import re
import sys
import types

import pytest
from torch import nn

from diffcern import memory
from diffcern.draws import check_draws
from diffcern.errors import DiffcernError, UsageError
from diffcern.methods import METHODS, build_method, checked_options, method_class, needs
from diffcern.methods.memo import Memo
from diffcern.methods.options import options_of
from diffcern.methods.purification import GDA
from diffcern.methods.ttt_mae import TTTMAE
from diffcern.predictors import Predictor
from diffcern.predictors.mae import MaeConfig, mae_predictor
from diffcern.tasks import TASKS

NUMBERS = [
    (name, option)
    for name, cls in METHODS.items()
    for option, field in options_of(cls).model_fields.items()
    if "float" in str(field.annotation) or "int" in str(field.annotation)
]


@pytest.mark.parametrize(("method", "option"), NUMBERS)
def test_every_number_of_every_method_is_finite_and_a_number(method, option):
    """Also where the option is off at present, as a gate is: it would be wrong once it is on."""
    sequence = option in ("span", "keep", "samples")
    for value in (math.nan, math.inf, -math.inf, 2.0**60, True):
        with pytest.raises(UsageError, match=rf"option '{option}"):
            checked_options(method, {option: [value, value] if sequence else value})


def test_options_that_are_in_order_stay_what_they_are():
    given = {"temperature": 2, "gate": None, "span": [0.1, 1], "steps": 3, "resample": False, "top_k": 2}
    assert checked_options("diffusion-tta", given) == {**given, "temperature": 2.0, "span": (0.1, 1.0)}
    assert checked_options("gda", {"ensemble": "sum", "skip": 0.5}) == {"ensemble": "sum", "skip": 0.5}
    with pytest.raises(UsageError, match="'resample' of diffusion-tta"):
        checked_options("diffusion-tta", {"resample": [1]})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":", "unknown method ':'.*Known: .*my_package"),
        ("", "unknown method"),
        ("math:", "unknown method"),
        (":pi", "unknown method"),
        ("math:pi", "is no method"),
        ("math:sqrt", "is no method: a method is a class with init and step"),
        ("collections:Counter", "is no method"),
        ("builtins:int", "is no method|cannot import"),
        ("builtins:type", "is no method|cannot import"),
        ("nothing:Nothing", r"unknown method 'nothing:Nothing'.*importable: PYTHONPATH"),
        ("math:nothing", "cannot import 'math:nothing', one of methods"),
        ("..math:pi", "unknown method"),
        (".:x", "unknown method"),
        ("a b:c", "unknown method"),
        ("\0:c", "unknown method"),
        ("broken_module:Method", "cannot import 'broken_module:Method', one of methods: this module is broken"),
    ],
)
def test_names_that_lead_to_no_method(name, message, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('this module is broken')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=message):
        method_class(name)


class Own:
    needs_batch = False

    def __init__(self, predictor, *, rate: float, other: "Nothing" = None) -> None:  # noqa: F821, UP037
        self.rate = rate

    def init(self):
        return None

    def step(self, state, inputs, seed):
        return None, state


def test_a_method_of_ones_own(monkeypatch):
    module = types.ModuleType("own_module")
    module.Own = Own
    monkeypatch.setitem(sys.modules, "own_module", module)
    with pytest.raises(UsageError, match="cannot tell the options of the method own_module:Own: name 'Nothing'"):
        checked_options("own_module:Own", {"rate": 1.0})
    monkeypatch.setitem(Own.__init__.__annotations__, "other", "int | None")
    assert checked_options("own_module:Own", {"rate": 1}) == {"rate": 1.0}
    with pytest.raises(UsageError, match="option 'rate' of own_module:Own: Field required"):
        checked_options("own_module:Own", {})


def test_draws_beyond_memory_say_how_much_they_need(predictor, prior, task, monkeypatch):
    with pytest.raises(UsageError, match=r"1,000,000,000,000 draws of 196 numbers each need 792,000 GB of memory"):
        build_method("diffusion-classifier", predictor, prior, task, {"draws": 10**12})
    with pytest.raises(UsageError, match=r"draws of 192 numbers each need .* give fewer draws"):
        build_method("diffusion-tta", predictor, prior, task, {"draws": 10**12})
    with pytest.raises(UsageError, match="draws"):
        build_method("diffusion-classifier", predictor, prior, task, {"keep": [1], "samples": [10**12]})
    with pytest.raises(UsageError, match="views of 8 pixels a side need"):
        Memo(predictor, views=10**12)
    mae = mae_predictor(MaeConfig(8, ("a", "b"), (0.5,) * 3, (0.5,) * 3, width=16, depth=1, heads=2, patch=4))
    with pytest.raises(UsageError, match="masks of 4 patches need"):
        TTTMAE(mae, masks=10**12)
    with pytest.raises(UsageError, match="even number, not 1000001"):
        check_draws("antithetic", 1_000_001)
    check_draws("uniform", 10**6, numbers=192)  # under a gigabyte
    monkeypatch.setattr(memory, "installed", lambda: 10**6)
    with pytest.raises(
        UsageError, match=r"2,000 draws of 192 numbers each need 0\.00155 GB .* this machine has 0\.001 GB"
    ):
        check_draws("uniform", 2000, numbers=192)


def test_amounts_of_memory_in_words():
    assert memory.gigabytes(1_610_000_000) == "1.61 GB"
    assert memory.gigabytes(4_300_000 * 10**9) == "4,300,000 GB"
    assert memory.gigabytes(10**30).startswith("10^")
    assert memory.installed() > 10**8


class Loose:
    def __init__(self, predictor, *rest, anything=1, **more) -> None:
        self.anything = anything

    def init(self):
        return None

    def step(self, state, inputs, seed):
        return None, state


def test_an_option_without_a_type_takes_anything(monkeypatch):
    """And arguments that have no name are no options."""
    module = types.ModuleType("loose_module")
    module.Loose = Loose
    monkeypatch.setitem(sys.modules, "loose_module", module)
    for value in ("text", 3, [1, 2], None):
        assert checked_options("loose_module:Loose", {"anything": value}) == {"anything": value}
    assert list(options_of(Loose).model_fields) == ["anything"]
    with pytest.raises(UsageError, match="unknown option of loose_module:Loose 'more'"):
        checked_options("loose_module:Loose", {"more": 1})


@pytest.mark.parametrize("value", [2**53, -(2**53), 2.0**53])
def test_numbers_are_within_two_to_the_53rd(value):
    """Where floats no longer tell apart all integers."""
    with pytest.raises(UsageError, match=r"within 2\^53"):
        checked_options("tent", {"learning_rate": value})
    assert checked_options("tent", {"steps": 2**53 - 1}) == {"steps": 2**53 - 1}


def test_texts_and_truth_values_are_no_numbers_inside_of_sequences_either():
    for value in (["0.1", 0.5], [0.1, True]):
        with pytest.raises(UsageError, match="option 'span' of diffusion-tta takes"):
            checked_options("diffusion-tta", {"span": value})


def test_which_models_a_method_takes(predictor, prior, task):
    """Only those that its constructor names are asked for, and a task only of methods that are for it."""
    assert [needs("diffusion-classifier", model) for model in ("predictor", "prior", "task")] == [False, True, True]
    assert [needs("tent", model) for model in ("predictor", "prior", "task")] == [True, False, False]
    build_method("tent", predictor, None, None, {})
    for name, given, missing in (
        ("tent", (None, prior, task), "predictor"),
        ("diffusion-tta", (predictor, None, task), "prior"),
        ("diffusion-tta", (predictor, prior, None), "task"),
    ):
        with pytest.raises(DiffcernError, match=f"{name} needs a {missing}: give one"):
            build_method(name, *given, {})


def test_a_method_of_another_task_is_refused_with_those_that_are_for_it(predictor, prior):
    depth = TASKS["depth"]
    with pytest.raises(
        UsageError,
        match="tent is not for depth; these are: source, bn-adapt, auto-contrast, grey-world, diffusion-tta, canonical",
    ):
        build_method("tent", predictor, prior, depth.__new__(depth), {})


@pytest.mark.parametrize(("size", "side"), [(8, 8), ((8, 12), 12), ((12, 8), 12), (None, 1)])
def test_views_are_as_large_as_the_predictors_longer_side(size, side, prior, task):
    """12 bytes for each pixel of three channels in fp32; a predictor of any size counts as one pixel."""
    predictor = Predictor(nn.Flatten(), task.class_names, size=size)
    prior.pixels, views = True, 10**13
    needed = re.escape(memory.gigabytes(12 * views * side**2))
    message = rf"10,000,000,000,000 views of {side} pixels a side need {needed} of memory.* give fewer views"
    with pytest.raises(UsageError, match=message):
        Memo(predictor, views=views)
    with pytest.raises(UsageError, match=message):
        GDA(predictor, prior, views=views)
