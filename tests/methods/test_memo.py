"""MEMO against its equation."""

import copy

import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import AugMix, Compose, RandomCrop, RandomHorizontalFlip, RandomResizedCrop

from diffcern.errors import UsageError
from diffcern.methods import build_method, memo
from diffcern.methods.memo import augmix, marginal_entropy
from diffcern.rng import generator
from diffcern.types import Inputs


class PublishedNorm(nn.Module):
    """16/17 of the training statistics and 1/17 of the batch's, however many images or views are in it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        with torch.no_grad():  # constants, and the batch's variance is the unbiased one
            mean = (16 * self.layer.running_mean + x.mean((0, 2, 3))) / 17
            variance = (16 * self.layer.running_var + x.var((0, 2, 3), correction=1)) / 17
        normal = (x - mean[:, None, None]) / (variance + self.layer.eps).sqrt()[:, None, None]
        return normal * self.layer.weight[:, None, None] + self.layer.bias[:, None, None]


def published(model):
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, PublishedNorm(child))
    return model


def test_a_step_is_the_equations_gradient(predictor, inputs):
    image, lr, views = inputs[:1], 0.1, 5
    method = build_method("memo", predictor, None, None, {"views": views, "learning_rate": lr, "crops": "none"})
    prediction, state = method.step(method.init(), image, 7)
    network = published(predictor)
    seen = augmix(image.images[0], views, 1, generator(7, "memo", *image.ids))  # level 1, as published
    m = network(seen).softmax(-1).mean(0)
    entropy = -(m * m.log()).sum()
    assert prediction.trace[0] == pytest.approx([entropy.item()], abs=1e-5)
    gradients = torch.autograd.grad(entropy, list(network.parameters()))
    with torch.no_grad():
        for theta, g, adapted in zip(network.parameters(), gradients, state.parameters.values(), strict=True):
            theta -= lr * g
            assert torch.allclose(adapted, theta, atol=1e-6 + 1e-4 * lr * g.abs().max())
    assert torch.allclose(prediction.output, network(image.images), atol=1e-5)  # of the image itself, after the step


def test_an_image_counts_once_however_many_images_there_are(predictor, inputs):
    """N / (N + n): without a step, several images are BN-adapt's answer for them."""
    memo = build_method("memo", predictor, None, None, {"views": 2, "learning_rate": 0.0})
    adapt = build_method("bn-adapt", predictor, None, None, {"source_count": 16.0})
    ours, theirs = memo.step(memo.init(), inputs, 0)[0], adapt.step(None, inputs, 0)[0]
    assert torch.equal(ours.output, theirs.output)


@pytest.mark.parametrize("crops", ["resized", "shifted"])
def test_published_crops_and_mirrors(crops):
    """Before AugMix, each view its own: half of them mirrored, and none is the whole picture any more."""
    left = torch.zeros(3, 16, 32)
    left[..., :12] = 1.0
    size = (16, 16) if crops == "resized" else (16, 32)
    views = augmix(left, 200, 1, generator(0, "memo", "a"), crops, size)
    assert views.shape == (200, 3, *size)
    right = (views[..., size[1] // 2 :].mean((1, 2, 3)) > views[..., : size[1] // 2].mean((1, 2, 3))).float().mean()
    assert 0.15 < right < 0.7
    plain = augmix(left, 200, 1, generator(0, "memo", "a"))
    assert (plain[..., 16:].mean((1, 2, 3)) > plain[..., :16].mean((1, 2, 3))).float().mean() < 0.1


def test_steps_lower_the_entropy(predictor, inputs):
    method = build_method("memo", predictor, None, None, {"views": 8, "learning_rate": 0.05, "crops": "none"})
    state, entropies = method.init(), []
    for _ in range(5):
        prediction, state = method.step(state, inputs[:1], 0)
        entropies += prediction.trace[0]
    assert entropies == sorted(entropies, reverse=True)


def test_views_belong_to_the_image_and_leave_the_global_generator_alone(inputs):
    before = torch.get_rng_state()
    views = augmix(inputs.images[0], 6, 3, generator(0, "memo", "a"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(augmix(inputs.images[0], 6, 3, generator(0, "memo", "a")), views)
    assert not torch.equal(augmix(inputs.images[0], 6, 3, generator(0, "memo", "b")), views)
    assert len(views.flatten(1).unique(dim=0)) == 6
    assert views.shape == (6, 3, 8, 8)
    assert 0 <= views.min() < views.max() <= 1


def test_the_seed_and_the_id_matter(predictor, inputs):
    method = build_method("memo", predictor, None, None, {"views": 4, "learning_rate": 0.1})
    outputs = [
        method.step(method.init(), Inputs(inputs.images[:1], [id]), seed)[0].output
        for id, seed in (("a", 0), ("b", 0), ("a", 1))
    ]
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_the_entropy_is_of_the_mean():
    certain = 100 * torch.eye(2)[None]  # two views, each sure of another class
    assert marginal_entropy(certain).item() == pytest.approx(torch.tensor(2.0).log().item())
    assert marginal_entropy(certain[:, :1].expand(1, 2, 2)).item() == pytest.approx(0.0)


def test_options_are_checked(predictor):
    for options in ({"views": 0}, {"severity": 11}, {"source_count": -1.0}):
        with pytest.raises(UsageError):
            build_method("memo", predictor, None, None, options)


def test_views_are_drawn_from_the_images_own_generator():
    """torchvision's AugMix without ImageNet-C's operations, its random state that of the generator; 8-bit images."""
    image, rng = torch.rand(3, 16, 32), generator(0, "memo", "a")
    size = (8, 12)
    before = {
        "none": [],
        "resized": [RandomResizedCrop(size, antialias=True), RandomHorizontalFlip()],
        "shifted": [RandomCrop(size, padding=(12 // 8, 8 // 8)), RandomHorizontalFlip()],  # an eighth, left and top
    }
    for crops, steps in before.items():
        transform = Compose([*steps, AugMix(severity=4, all_ops=False)])
        with torch.random.fork_rng():
            torch.set_rng_state(rng.get_state())
            expected = torch.stack([transform((image * 255).round().to(torch.uint8)) for _ in range(5)]) / 255
        given = None if crops == "none" else size
        assert torch.allclose(augmix(image, 5, 4, rng, crops, given), expected)


def test_options_reach_the_step(predictor, inputs):
    """Momentum, severity and parameters; two steps by hand on the entropy of the views."""
    options = {"views": 3, "severity": 5, "learning_rate": 0.1, "momentum": 0.6, "parameters": "last", "crops": "none"}
    method = build_method("memo", predictor, None, None, options)
    network, state = published(predictor), method.init()
    last = [p for name, p in network.named_parameters() if name in state.parameters]
    assert len(last) == 2
    optimizer = torch.optim.SGD(last, 0.1, 0.6)
    views = augmix(inputs.images[0], 3, 5, generator(2, "memo", *inputs.ids[:1]))
    for _ in range(2):
        answer, state = method.step(state, inputs[:1], 2)
        optimizer.zero_grad()
        marginal_entropy(network(views)[None]).sum().backward()
        optimizer.step()
    assert torch.allclose(answer.output, network(inputs.images[:1]), atol=1e-5)
    assert not answer.output.requires_grad


def test_crops_that_resize_are_of_the_image_as_it_was_given(predictor, monkeypatch):
    """And those that shift, of what the predictor sees of it."""
    shown = []

    def seen(image, views, *rest):
        shown.append((tuple(image.shape), rest[-1]))
        return torch.zeros(views, 3, 8, 8)

    monkeypatch.setattr(memo, "augmix", seen)
    for crops in ("resized", "shifted"):
        method = build_method("memo", predictor, None, None, {"views": 2, "crops": crops})
        method.step(method.init(), Inputs(torch.rand(1, 3, 24, 20), ["a"]), 0)
    assert shown == [((3, 24, 20), (8, 8)), ((3, 8, 8), (8, 8))]
