"""How fast training was, and the share of what the machine's matrix products reach."""

import pytest
import torch
from torch import nn

from diffcern.train.loop import train
from diffcern.train.pace import PRODUCT, Pace, counted, peak
from diffcern.train.recipes import Regime


def test_operations_of_a_step_are_those_of_its_products():
    layer, images = nn.Linear(30, 20), torch.randn(8, 30)
    operations = counted(lambda: layer(images).sum().backward())
    assert operations == 2 * (2 * 8 * 30 * 20)  # forwards, and the slope of the weight; the images have none


def test_the_pace_of_a_run(tmp_path):
    torch.manual_seed(0)
    layer = nn.Linear(30, 20)
    outcome = train(layer, lambda step: layer(torch.ones(8, 30)).square().mean(), Regime(80, 8, 1e-3), tmp_path, {})
    assert outcome.pace is not None
    assert outcome.pace.operations == pytest.approx(outcome.pace.images * 2 * 2 * 30 * 20)
    assert outcome.pace.peak > 1e9
    again = train(layer, lambda step: layer(torch.ones(8, 30)).square().mean(), Regime(80, 8, 1e-3), tmp_path, {})
    assert again.pace is None  # nothing was left to do


def test_in_words():
    assert str(Pace(101.2, 2.5e10, 1e11)) == "101 images/s, 25 GFLOP/s, 25% of this machine's products"


def test_the_peak_is_of_a_product_that_takes_time():
    assert PRODUCT / peak(torch.device("cpu")) > 1e-5
