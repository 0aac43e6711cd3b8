"""TENT with the statistics of the source: the affine weights alone adapt, and no image reads another."""

import torch

from diffcern.methods import build_method, reads_batch
from diffcern.methods.parameters import choose_parameters


def test_it_needs_a_batch_for_the_batchs_statistics_only(predictor):
    for statistics, needs in (("batch", True), ("source", False)):
        method = build_method("tent", predictor, None, None, {"statistics": statistics})
        assert method.needs_batch is needs
        assert method.answers_alone is not needs
        assert reads_batch("tent", {"statistics": statistics}) is needs
    assert reads_batch("tent", {})


def test_with_the_sources_statistics_a_step_is_the_entropys_gradient(predictor, inputs):
    method = build_method(
        "tent", predictor, None, None, {"statistics": "source", "optimizer": "sgd", "learning_rate": 0.5}
    )
    answer, state = method.step(method.init(), inputs[:1], 0)
    assert torch.equal(answer.output, predictor(inputs.images[:1]))  # from before the step: the source's own
    weights = {name: dict(predictor.named_parameters())[name] for name in choose_parameters(predictor, "norm")}
    assert weights.keys() == state.parameters.keys()
    p = predictor(inputs.images[:1]).softmax(1)
    gradients = torch.autograd.grad(-(p * p.log()).sum(), list(weights.values()))
    for (name, before), gradient in zip(weights.items(), gradients, strict=True):
        expected = before - 0.5 * 1.9 * gradient  # Nesterov's first step: 1 + momentum
        assert torch.allclose(state.parameters[name], expected, atol=1e-5)


def test_an_image_is_answered_the_same_in_any_company(predictor, inputs):
    """From the same state; of the batch's statistics this is not so."""
    for statistics, same in (("source", True), ("batch", False)):
        method = build_method("tent", predictor, None, None, {"statistics": statistics, "learning_rate": 0.05})
        _, state = method.step(method.init(), inputs, 0)
        alone, beside = method.step(state, inputs[:1], 0)[0].output, method.step(state, inputs, 0)[0].output[:1]
        assert torch.allclose(alone, beside, atol=1e-5) is same
