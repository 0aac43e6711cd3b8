"""A photograph, and what every predictor must do with it."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from diffcern.methods.base import call, frozen_copy
from diffcern.methods.parameters import choose_parameters
from diffcern.predictors import Predictor

# 8-bit rounding, once or twice, is all that parts our float arithmetic from the libraries' 8-bit one: 0.28 levels of
# 255 on average was measured for every family. One pixel of shift makes 10.
LEVELS = 0.4


@pytest.fixture
def photo() -> PIL.Image.Image:
    """A temple, 640 x 427: odd margins in every crop."""
    return PIL.Image.fromarray(load_sample_image("china.jpg"))


def tensor(image: PIL.Image.Image) -> Tensor:
    """`[1, 3, H, W]` in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255


def levels(predictor: Predictor, image: PIL.Image.Image, expected: Tensor) -> float:
    """The mean difference between what the predictor and the library show to the model, in levels of 255."""
    actual = predictor.prepare(tensor(image))
    assert actual.shape == expected.shape
    return float(((actual - expected) * predictor.std * 255).abs().mean())


def check_adaptable(predictor: Predictor, side: int = 40) -> None:
    """A frozen copy works with other weights in place of its own; gradients reach weights and images; the original
    stays as it was, in eval mode."""
    images = torch.rand(2, 3, side, side + 8, requires_grad=True)
    assert not any(module.training for module in predictor.modules())
    before = predictor(images).detach()
    copy = frozen_copy(predictor)
    leaves = {name: value.requires_grad_() for name, value in choose_parameters(predictor, "all").items()}
    output = call(copy, leaves, images)
    torch.testing.assert_close(output.detach(), before)
    output.square().mean().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    moved = {name: value.detach() - leaf_step(value) for name, value in leaves.items()}
    assert not torch.allclose(call(copy, moved, images), before)
    torch.testing.assert_close(predictor(images).detach(), before)
    torch.testing.assert_close(predictor(images[:1]).detach(), before[:1], atol=1e-4, rtol=1e-4)


def leaf_step(leaf: Tensor) -> Tensor:
    """A step along the gradient's sign, none where the output does not depend on the weight."""
    return torch.zeros_like(leaf) if leaf.grad is None else 0.05 * leaf.grad.sign()


def loud(model: nn.Module) -> nn.Module:
    """Random numbers everywhere, also where training starts at zero: a silent path would hide a mistake."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model
