"""What `diffcern.adapt` and the module that it makes refuse, and say."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import diffcern

IMAGES = torch.rand(2, 3, 8, 8)


@pytest.fixture
def model(predictor, prior):
    return diffcern.adapt(predictor, prior, draws=2, steps=1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES * 255, r"pixels are in \[0, 1\], not in"),
        (IMAGES.mul(255).byte(), r"floating point.*uint8"),
        (IMAGES[0], r"\[B, 3, H, W\].*not \[3, 8, 8\]"),
        (IMAGES[:0], r"B of at least 1"),
        (IMAGES.numpy(), "not a ndarray"),
        (IMAGES.masked_fill(IMAGES > 0.5, np.nan), r"pixels are in \[0, 1\], not in \[nan"),
    ],
)
def test_what_is_no_batch_of_images(model, images, message):
    with pytest.raises(diffcern.UsageError, match=message):
        model(images)


def test_one_id_for_each_image(model):
    with pytest.raises(diffcern.UsageError, match="2 images, 1 ids"):
        model(IMAGES, ids=["a"])


def test_double_precision_is_taken(model):
    assert torch.equal(model(IMAGES.double()), model(IMAGES))


def test_a_bare_network_and_swapped_models(predictor, prior):
    with pytest.raises(diffcern.UsageError, match="wrap a network of yours"):
        diffcern.adapt(nn.Linear(2, 2), prior)
    with pytest.raises(diffcern.UsageError, match=r"not GaussianMixturePrior and Predictor"):
        diffcern.adapt(prior, predictor)


def test_images_of_different_sizes_in_one_list(model):
    wide = torch.rand(3, 8, 20)
    both = model([IMAGES[0], wide])
    assert torch.allclose(both[:1], model(IMAGES[:1]), atol=1e-5)
    assert torch.allclose(both[1:], model(wide[None]), atol=1e-5)
    with pytest.raises(diffcern.UsageError, match=r"not \[1, 8, 20\]"):
        model([IMAGES[0], wide[0]])


def test_one_image_alone_has_no_batch_statistics(predictor):
    """The last batch of a loader: TENT's answer for it means nothing, and it says so."""
    tent, mixed = (
        diffcern.adapt(predictor, method=name, online=True, **options)
        for name, options in (("tent", {}), ("bn-adapt", {"source_count": 16.0}))
    )
    with pytest.warns(UserWarning, match="its answer means nothing"):
        tent(IMAGES[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tent(IMAGES)
        mixed(IMAGES[:1])


def held(value: object) -> list[torch.Tensor]:
    """All tensors of a state, as a flat list."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in held(part)]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in held(part)]
    return held(vars(value)) if hasattr(value, "__dict__") else []


METHODS = {
    "source": {},
    "tent": {},
    "bn-adapt": {},
    "memo": {"views": 2},
    "eta": {},
    "eata": {"source_images": "embedded:digits/train", "fisher_count": 2},
    "sar": {},
    "deyo": {},
    "roid": {},
    "cotta": {"views": 2},
    "diffusion-tta": {"steps": 1, "draws": 2},
    "diffusion-classifier": {"draws": 2, "start": 2},
    "dusa": {"top_k": 2, "random_k": 1},
    "diffpure": {"start": 20, "steps": 2, "solver": "ddpm"},
    "dda": {"start": 20, "steps": 2},
    "gda": {"start": 20, "steps": 2},
}


@pytest.mark.parametrize("method", METHODS)
def test_its_parameters_are_those_of_the_private_networks(predictor, prior, method):
    """As evaluation loops ask for a model's device."""
    prior.pixels = True  # gda looks at them
    adapted = diffcern.adapt(predictor, prior, method, **METHODS[method])
    expected = adapted(IMAGES)
    tensors = [*adapted.parameters(), *adapted.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert not any(parameter.requires_grad for parameter in adapted.parameters())
    assert not {id(tensor) for tensor in tensors} & {id(t) for m in (predictor, prior) for t in m.parameters()}
    if method != "diffusion-classifier":
        assert next(adapted.parameters()).shape == next(predictor.parameters()).shape
    adapted.train()  # as some loops do, and then some forget to undo
    assert not any(module.training for module in adapted.networks.modules() if module is not adapted.networks)
    assert torch.equal(adapted(IMAGES), expected)


@pytest.mark.parametrize("method", METHODS)
def test_it_moves_as_a_whole_and_the_given_models_stay(predictor, prior, method):
    """To a device without memory, which every machine has."""
    prior.pixels = True
    adapted = diffcern.adapt(predictor, prior, method, online=True, **METHODS[method])
    adapted(IMAGES)
    assert adapted.to("meta") is adapted
    moved = [*adapted.parameters(), *adapted.buffers(), *held(adapted.state)]
    moved += [
        t for name, value in vars(adapted.method).items() if name in ("hypotheses", "owners") for t in held(value)
    ]
    assert {tensor.device.type for tensor in moved} == {"meta"}
    given = [tensor for model in (predictor, prior) for tensor in (*model.parameters(), *model.buffers())]
    assert {tensor.device.type for tensor in given} == {"cpu"}


def test_moving_where_it_is_keeps_the_state(predictor, prior):
    options = {"steps": 1, "draws": 2, "learning_rate": 0.05, "online": True}
    one, other = (diffcern.adapt(predictor, prior, **options) for _ in range(2))
    one(IMAGES)
    other(IMAGES)
    assert torch.equal(one.to("cpu").cpu()(IMAGES), other(IMAGES))


def test_another_precision_is_refused_by_name(model):
    for change in (model.half, model.double, lambda: model.to(torch.bfloat16)):
        with pytest.raises(diffcern.UsageError, match="load_prior"):
            change()
    assert model.float() is model
