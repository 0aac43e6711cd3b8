"""Priors that read text: any number of prompts, on any device, in bounded memory."""

from __future__ import annotations

import pytest
import torch
from hub_checkpoints import sd3, sdxl, stable_diffusion
from torch import nn

from diffcern.errors import UsageError
from diffcern.labels import vocabulary_of
from diffcern.methods import build_method
from diffcern.priors import load_prior
from diffcern.tasks import Classification
from diffcern.types import Condition, Inputs

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    torch.manual_seed(0)
    return load_prior(str(stable_diffusion(tmp_path_factory.mktemp("sd"))))


def batches(network: nn.Module, seen: list[int]):
    """Notes how many rows each call of a network has."""
    return network.register_forward_pre_hook(
        lambda _, arguments, named: seen.append(len(next(v for v in (*arguments, *named.values()) if v.ndim))),
        with_kwargs=True,
    )


def test_prompts_are_encoded_some_at_a_time(prior, monkeypatch):
    prompts, seen = [f"a photo of number {k}" for k in range(11)], []
    whole = prior.prompts(prompts)
    monkeypatch.setattr(prior.encoder, "rows", 4)
    with batches(prior.encoder.networks[0], seen):
        parts = prior.prompts(prompts)
    assert seen == [4, 4, 3]
    assert torch.allclose(parts.tokens, whole.tokens, atol=1e-5)


@pytest.mark.parametrize("build", [stable_diffusion, sdxl, sd3])
def test_encoders_are_on_the_device_while_they_encode(build, tmp_path, monkeypatch):
    """And in main memory again afterwards, also where a prompt fails."""
    encoder = load_prior(str(build(tmp_path / "prior"))).encoder
    moves, to = [], nn.Module.to
    monkeypatch.setattr(nn.Module, "to", lambda self, where: moves.append((self, where)) or to(self, where))
    encoder(["a cat"], CPU)
    there, back = ([(network, where) for network in encoder.networks] for where in (CPU, "cpu"))
    assert moves == [*there, *back]
    moves.clear()
    monkeypatch.setattr(encoder.pipeline, "encode_prompt", None)
    with pytest.raises(TypeError):
        encoder(["a cat"], CPU)
    assert moves == [*there, *back]
    moves.clear()
    with pytest.raises(UsageError, match="longer than the 77 tokens"):
        encoder(["x" * 90], CPU)
    assert moves == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(tmp_path):
    folder = str(stable_diffusion(tmp_path / "sd"))
    expected = load_prior(folder, labels=["cat", "dog"])
    prior = load_prior(folder, labels=["cat", "dog"], device="cuda")
    assert prior.labels.rows.tokens.device.type == prior.prompts(["fox"]).tokens.device.type == "cuda"
    assert {p.device.type for network in prior.encoder.networks for p in network.parameters()} == {"cpu"}
    assert torch.allclose(prior.labels.rows.tokens.cpu(), expected.labels.rows.tokens, atol=1e-3)


def test_more_labels_than_rows(prior):
    """A network never meets more than `rows` rows, however many labels there are; the answer is the same."""
    labels, seen = [f"number {k}" for k in range(150)], []
    prior.with_labels(vocabulary_of(labels, ["a {}", "the {}"]))
    task, inputs = Classification(labels, prior.class_names), Inputs(torch.rand(1, 3, 16, 16), ["a"])
    answers = []
    for rows in (16, 1000):
        method = build_method("diffusion-classifier", None, prior, task, {"draws": 2, "rows": rows})
        with batches(method.prior.denoiser, seen):
            answers.append(method.step(None, inputs, 0)[0])
    assert max(seen[:-1]) == 16
    assert sum(seen[:-1]) == seen[-1] == 2 * 150 * 2
    assert torch.allclose(answers[0].output, answers[1].output, rtol=1e-3, atol=1e-3)


def test_several_prompts_of_a_label_are_one_mean_in_a_mixture(prior):
    prior.with_labels(vocabulary_of({"cat": ["a cat", "a kitten"], "dog": ["a dog"]}, None))
    tokens = prior.prompts(["a cat", "a kitten", "a dog"]).tokens
    mixed = 0.7 * (tokens[0] + tokens[1]) / 2 + 0.3 * tokens[2]
    x, t = torch.randn(1, *prior.latent_shape), torch.tensor([400])
    output = prior(x, t, Condition(classes=torch.tensor([[0.7, 0.3]]))).output
    assert torch.allclose(output, prior(x, t, Condition(tokens=mixed[None])).output, atol=1e-5)
