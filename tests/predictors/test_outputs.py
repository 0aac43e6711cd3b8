"""A predictor around a network of one's own: whatever it answers with, in whatever precision, or one clear sentence."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput

import diffcern
from diffcern.errors import UsageError

NAMES = tuple("0123")


class Network(nn.Module):
    """Four logits, put as `form` puts them."""

    def __init__(self, form=lambda logits, features: logits, outputs: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.head, self.form = nn.Linear(6, outputs), form

    def forward(self, images):
        features = self.layers(images).mean((2, 3))
        return self.form(self.head(features), features)


Pair = namedtuple("Pair", ["logits", "auxiliary"])
FORMS = {
    "tensor": lambda logits, features: logits,
    "tuple": lambda logits, features: (logits, features),
    "tuple, features first": lambda logits, features: (features, logits),
    "list": lambda logits, features: [logits],
    "named tuple": lambda logits, features: Pair(logits, None),
    "dictionary": lambda logits, features: {"features": features, "logits": logits},
    "dictionary by another name": lambda logits, features: {"scores": logits, "features": features},
    "ModelOutput": lambda logits, features: ImageClassifierOutput(logits=logits, hidden_states=(features,)),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_in_any_form(form, prior):
    images = torch.rand(3, 3, 8, 8)
    expected = diffcern.Predictor(Network(), NAMES, size=8)(images)
    predictor = diffcern.Predictor(Network(FORMS[form]), NAMES, size=8)
    assert torch.equal(predictor(images), expected)
    for method in ("source", "tent"):
        assert torch.isfinite(diffcern.adapt(predictor, method=method)(images)).all()
    adapted = diffcern.adapt(predictor, prior, steps=1, draws=4, learning_rate=0.05)
    assert not torch.allclose(adapted(images), expected)
    assert torch.equal(predictor.restrict(["2", "0"])(images), expected[:, [2, 0]])


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Network(outputs=1000), "the network has 1000 outputs and the predictor 4 class names"),
        (Network(outputs=1), r"1 outputs and the predictor 4 .*sigmoid.*torch.cat\(\[-z / 2, z / 2\], 1\)"),
        (Network(lambda logits, _: (logits, logits)), r"several parts.*0: \[2, 4\], 1: \[2, 4\].*wrap it"),
        (Network(lambda _, features: {"features": features}), r"no part .* logits \[B, classes\] .features: \[2, 6\]"),
        (Network(lambda logits, _: logits[0]), r"for 2 images the network answers with \[4\], where logits"),
        (Network(lambda logits, _: logits[:1]), r"for 2 images the network answers with \[1, 4\]"),
        (Network(lambda logits, _: logits[:, :, None, None]), r"answers with \[2, 4, 1, 1\]"),
        (Network(lambda logits, _: None), "answers with a NoneType, where logits"),
        (Network(lambda logits, _: "cat"), "answers with a str, where logits"),
    ],
)
def test_an_answer_that_is_none_is_said_in_one_sentence(network, message):
    predictor = diffcern.Predictor(network, NAMES, size=8)
    with pytest.raises(UsageError, match=message):
        predictor(torch.rand(2, 3, 8, 8))
    with pytest.raises(UsageError, match=message):
        diffcern.adapt(predictor, method="tent")(torch.rand(2, 3, 8, 8))


def test_maps_in_any_form():
    class Maps(nn.Module):
        def __init__(self, form) -> None:
            super().__init__()
            self.layer, self.form = nn.Conv2d(3, 4, 3, 2), form

        def forward(self, images):
            return self.form(self.layer(images))

    images = torch.rand(2, 3, 9, 12)
    segmenter = diffcern.Predictor(Maps(lambda maps: {"out": maps, "aux": maps}), NAMES, task="segmentation")
    assert segmenter(images).shape == (2, 4, 9, 12)
    for form in (lambda maps: maps[:, :1], lambda maps: maps[:, 0], lambda maps: {"predicted_depth": maps[:, 0]}):
        assert diffcern.Predictor(Maps(form), (), task="depth")(images).shape == (2, 9, 12)
    with pytest.raises(UsageError, match="the network has 4 outputs and the predictor 2 class names"):
        diffcern.Predictor(Maps(lambda maps: maps), ("a", "b"), task="segmentation")(images)
    with pytest.raises(UsageError, match=r"answers with \[2, 4, 4, 5\], where a map \[B, h, w\] is wanted"):
        diffcern.Predictor(Maps(lambda maps: maps), (), task="depth")(images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("whole", [False, True], ids=["the network", "the predictor"])
def test_a_network_of_any_precision(dtype, whole, prior):
    """It answers in fp32 (a double one in double), and half weights are adapted in fp32."""
    images = torch.rand(3, 3, 8, 8)
    expected = diffcern.Predictor(Network(), NAMES, size=8)(images)
    predictor = diffcern.Predictor(Network() if whole else Network().to(dtype), NAMES, size=8)
    predictor = predictor.to(dtype) if whole else predictor
    answer = predictor(images)
    assert answer.dtype == (dtype if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(answer.float(), expected, rtol=0, atol=0.02)
    for method in ("source", "bn-adapt", "tent"):
        assert torch.isfinite(diffcern.adapt(predictor, method=method)(images)).all()
    adapted = diffcern.adapt(predictor, prior, steps=1, draws=4, learning_rate=0.05)
    weights = adapted.method.init().predictor.parameters
    full = torch.float64 if dtype == torch.float64 else torch.float32
    assert {value.dtype for value in weights.values()} == {full}  # half ones would round most steps away
    assert torch.isfinite(adapted(images)).all()
    assert not torch.allclose(adapted(images), answer, atol=1e-4)
    assert next(predictor.model.parameters()).dtype == dtype  # and the user's own stays as it is


@pytest.mark.parametrize("compile_", [torch.jit.script, lambda net: torch.jit.trace(net, torch.rand(2, 3, 8, 8))])
def test_torchscript(compile_, prior):
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    ).eval()
    images = torch.rand(3, 3, 8, 8)
    expected = diffcern.Predictor(network, NAMES, size=8)(images)
    predictor = diffcern.Predictor(compile_(network), NAMES, size=8)
    torch.testing.assert_close(predictor(images), expected)
    torch.testing.assert_close(diffcern.adapt(predictor, method="source")(images), expected)
    adapted = diffcern.adapt(predictor, prior, steps=1, draws=4, learning_rate=0.05)
    plain = diffcern.adapt(diffcern.Predictor(network, NAMES, size=8), prior, steps=1, draws=4, learning_rate=0.05)
    torch.testing.assert_close(adapted(images), plain(images))
    assert not torch.allclose(adapted(images), expected)
    torch.testing.assert_close(predictor(images), expected)


def test_torchscript_without_parameters_says_so(prior):
    frozen = torch.jit.freeze(torch.jit.script(Network().layers[:1].eval()))
    predictor = diffcern.Predictor(
        nn.Sequential(frozen, nn.AdaptiveAvgPool2d(1), nn.Flatten()), tuple("012345"), size=8
    )
    assert predictor(torch.rand(2, 3, 8, 8)).shape == (2, 6)
    with pytest.raises(diffcern.DiffcernError, match="no parameters"):
        diffcern.adapt(predictor, method="memo")(torch.rand(1, 3, 8, 8))


def test_probabilities_are_no_logits():
    """Their softmax would be nearly the same for all classes."""
    images = torch.rand(2, 3, 8, 8)
    for form in (lambda logits, _: logits.softmax(1), lambda logits, _: logits.softmax(1).half()):
        with pytest.raises(UsageError, match=r"answers with probabilities .*: leave its last softmax out"):
            diffcern.Predictor(Network(form), NAMES, size=8)(images)
    logarithms = diffcern.Predictor(Network(lambda logits, _: logits.log_softmax(1)), NAMES, size=8)(images)
    torch.testing.assert_close(logarithms.softmax(1), diffcern.Predictor(Network(), NAMES, size=8)(images).softmax(1))
    assert diffcern.Predictor(Network(lambda logits, _: torch.eye(4)[:2]), NAMES, size=8)(images).shape == (2, 4)
