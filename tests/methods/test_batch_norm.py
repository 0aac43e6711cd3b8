"""Mixed batch statistics at their edges: one pixel, one image, no affine, other dimensions, hooks."""

import pytest
import torch
from torch import nn

from diffcern.errors import DiffcernError, UsageError
from diffcern.methods.batch_norm import BatchNormAdapt, BatchStatisticsNorm, with_batch_statistics


def layer_of(kind, features=3, **options):
    layer = kind(features, **options).eval()
    generator = torch.Generator().manual_seed(0)
    layer.running_mean.copy_(torch.randn(features, generator=generator))
    layer.running_var.copy_(torch.rand(features, generator=generator) + 0.5)
    if layer.affine:
        layer.weight.data.copy_(torch.randn(features, generator=generator))
        layer.bias.data.copy_(torch.randn(features, generator=generator))
    return layer


def equation(layer, x, count):
    """N/(N+n) of the source's and n/(N+n) of the batch's; the unbiased variance where they mix."""
    axes = [0, *range(2, x.ndim)]
    keep = count / (count + len(x))
    mean = keep * layer.running_mean + (1 - keep) * x.mean(axes)
    variance = keep * layer.running_var + (1 - keep) * x.var(axes, correction=1 if count else 0)
    shape = (1, -1, *[1] * (x.ndim - 2))
    normal = (x - mean.view(shape)) / (variance.view(shape) + layer.eps).sqrt()
    return normal if layer.weight is None else normal * layer.weight.view(shape) + layer.bias.view(shape)


@pytest.mark.parametrize("count", [0.0, 2.0])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.BatchNorm1d, (6, 3)), (nn.BatchNorm1d, (6, 3, 5)), (nn.BatchNorm2d, (4, 3, 2, 5))]
)
def test_it_is_the_equation(kind, shape, affine, count):
    layer = layer_of(kind, affine=affine, eps=0.1)
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    found = with_batch_statistics(nn.Sequential(layer), count)(x)
    assert torch.allclose(found, equation(layer, x, count), atol=1e-5)


def test_one_number_per_channel_has_no_variance():
    """One image of one pixel: the unbiased variance of one number is NaN, and its own is 0."""
    layer = layer_of(nn.BatchNorm2d)
    x = torch.randn(1, 3, 1, 1)
    found = with_batch_statistics(nn.Sequential(layer), 3.0)(x).flatten()
    mean = 0.75 * layer.running_mean + 0.25 * x.flatten()
    expected = (x.flatten() - mean) / (0.75 * layer.running_var + layer.eps).sqrt() * layer.weight + layer.bias
    assert torch.allclose(found, expected, atol=1e-5)


def test_gradients_go_through_the_batchs_statistics_unless_told_otherwise():
    """As in training mode, whose layer is torch's own."""
    layer, x = layer_of(nn.BatchNorm2d), torch.randn(4, 3, 2, 2, requires_grad=True)
    (through,) = torch.autograd.grad(with_batch_statistics(nn.Sequential(layer))(x).pow(3).sum(), x)
    (trained,) = torch.autograd.grad(layer.train()(x).pow(3).sum(), x)
    assert torch.allclose(through, trained, atol=1e-4)


def test_names_and_hooks_are_the_layers():
    layer, seen = layer_of(nn.BatchNorm2d), []
    layer.register_forward_hook(lambda module, given, made: seen.append(made.shape))
    layer.register_forward_pre_hook(lambda module, given: seen.append("before"))
    model = nn.Sequential(nn.Sequential(layer))
    copied = with_batch_statistics(model)
    assert isinstance(copied[0][0], BatchStatisticsNorm)
    assert not isinstance(model[0][0], BatchStatisticsNorm)
    names = {name for name in model.state_dict() if "num_batches" not in name}
    assert copied.state_dict().keys() == names
    copied(torch.randn(2, 3, 2, 2))
    assert seen == ["before", (2, 3, 2, 2)]


def test_buffers_stay_as_they_are():
    layer = layer_of(nn.BatchNorm2d)
    before = layer.running_mean.clone(), layer.running_var.clone()
    copied = with_batch_statistics(nn.Sequential(layer), 1.0).train()
    copied(torch.randn(4, 3, 2, 2))
    assert torch.equal(copied[0].running_mean, before[0])
    assert torch.equal(copied[0].running_var, before[1])


def test_what_is_refused(predictor):
    with pytest.raises(UsageError, match="at least 0, not -1"):
        with_batch_statistics(nn.Sequential(layer_of(nn.BatchNorm2d)), -1.0)
    for missing in ("running_mean", "running_var"):
        layer = layer_of(nn.BatchNorm2d)
        setattr(layer, missing, None)
        with pytest.raises(DiffcernError, match="running statistics"):
            with_batch_statistics(nn.Sequential(layer))


def test_a_batch_of_one_is_answered_where_the_source_counts(predictor, inputs):
    """`answers_alone`: a batch of one image has statistics of its own only beside the training data's."""
    mixed, alone = BatchNormAdapt(predictor, 16.0), BatchNormAdapt(predictor)
    assert mixed.answers_alone
    assert not alone.answers_alone
    answer, state = mixed.step(mixed.init(), inputs, 0)
    assert torch.equal(answer.output, with_batch_statistics(predictor, 16.0)(inputs.images))
    assert not answer.output.requires_grad
    assert len(answer.costs) == len(inputs)
    assert state is None
