"""Options that no method means anything by, and names of methods that are none, are refused before any work."""

from __future__ import annotations

import math
import sys
import types

import pytest

from diffcern import memory
from diffcern.draws import check_draws
from diffcern.errors import UsageError
from diffcern.methods import METHODS, build_method, checked_options, method_class
from diffcern.methods.memo import Memo
from diffcern.methods.options import options_of
from diffcern.methods.ttt_mae import TTTMAE
from diffcern.predictors.mae import MaeConfig, mae_predictor

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
