"""What diffusers' DiT and the published one differ in: the frequencies of the time, and copies of the embedders."""

import math
import shutil

import pytest
import torch
from hub_checkpoints import ddpm, dit

from diffcern.draws import draw
from diffcern.errors import UsageError
from diffcern.fingerprints import fingerprint
from diffcern.likelihood import condition_gradient
from diffcern.methods import build_method
from diffcern.predictors import Predictor
from diffcern.priors import load_prior
from diffcern.tasks import Classification
from diffcern.types import Inputs

WIDTH = 256  # of the time's embedding, in every published DiT


def told(prior, t):
    """What the network is told of a timestep, `[WIDTH]`."""
    embedder, seen = prior.denoiser.transformer_blocks[0].norm1.emb, []
    handle = embedder.timestep_embedder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        prior(torch.zeros(1, *prior.latent_shape), torch.tensor([t]), prior.hypotheses()[:1])
    handle.remove()
    return seen[0][0]


def equation(t, divisor):
    """cos(t f_i), then sin(t f_i), with f_i = exp(-ln(10000) i / divisor) (Peebles & Xie 2023; Vaswani et al. 2017)."""
    half = WIDTH // 2
    angles = [t * math.exp(-math.log(10_000) * i / divisor) for i in range(half)]
    return torch.tensor([*map(math.cos, angles), *map(math.sin, angles)])


@pytest.fixture
def published(tmp_path, publish):
    """A tiny DiT under the name of the published one, in the cache of the hub and as a folder."""
    torch.manual_seed(0)
    folder = dit(tmp_path / "DiT-XL-2-256")
    publish(folder, "facebook/DiT-XL-2-256")
    return folder


@pytest.mark.parametrize("t", [0, 1, 250, 999])
def test_published_dits_hear_the_published_frequencies(published, t):
    for name in ("hf:facebook/DiT-XL-2-256", str(published)):
        torch.testing.assert_close(told(load_prior(name), t), equation(t, WIDTH // 2), atol=2e-4, rtol=0)


@pytest.mark.parametrize("t", [0, 1, 250, 999])
def test_others_hear_those_of_diffusers(published, tmp_path, t):
    shutil.copytree(published, tmp_path / "ours")
    for name in (tmp_path / "ours", "hf:facebook/DiT-XL-2-256+frequencies:diffusers"):
        torch.testing.assert_close(told(load_prior(str(name)), t), equation(t, WIDTH // 2 - 1), atol=2e-4, rtol=0)
    switched = load_prior(f"{tmp_path / 'ours'}+frequencies:published")
    torch.testing.assert_close(told(switched, t), equation(t, WIDTH // 2), atol=2e-4, rtol=0)


def test_the_two_differ_and_are_told_apart(published):
    priors = [load_prior(f"{published}+frequencies:{which}") for which in ("published", "diffusers")]
    latents, t = torch.randn(4, *priors[0].latent_shape), torch.full((4,), 999)
    ours, theirs = (prior(latents, t, prior.hypotheses()[:1].map(lambda c: c.expand(4, -1))).eps for prior in priors)
    assert (ours - theirs).norm() > 1e-3 * theirs.norm()
    assert len({fingerprint(prior) for prior in priors}) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [("{dit}+frequencies:half", "unknown frequencies"), ("{ddpm}+frequencies:published", "for DiTs")],
)
def test_frequencies_that_do_not_exist(published, tmp_path, name, message):
    places = {"dit": published, "ddpm": ddpm(tmp_path / "ddpm")}
    with pytest.raises(UsageError, match=message):
        load_prior(name.format(**places))


def test_copies_of_the_embedders_become_one_and_move_by_the_sum_of_their_gradients(tmp_path):
    """As published: one embedder of time and class, whose gradient diffusers deals out over its copies."""
    torch.manual_seed(0)
    apart = load_prior(str(dit(tmp_path / "dit")))
    blocks = apart.denoiser.transformer_blocks
    assert len(blocks) > 1
    assert blocks[1].norm1.emb is not blocks[0].norm1.emb  # their numbers differ
    for block in blocks[1:]:
        block.norm1.emb.load_state_dict(blocks[0].norm1.emb.state_dict())
    apart.denoiser.save_pretrained(tmp_path / "dit" / "transformer")
    shared = load_prior(str(tmp_path / "dit"))
    assert shared.denoiser.transformer_blocks[1].norm1.emb is shared.denoiser.transformer_blocks[0].norm1.emb
    assert sum(p.numel() for p in shared.parameters()) < sum(p.numel() for p in apart.parameters())

    gradients = []
    for prior in (apart, shared):
        latents = torch.randn(2, *prior.latent_shape, generator=torch.Generator().manual_seed(1))
        draws = draw("uniform", 3, latents, ["a", "b"], seed=0, num_timesteps=1000)
        weights = {n: p for n, p in prior.named_parameters() if n.startswith("denoiser.")}
        gradients.append(
            condition_gradient(prior, latents, prior.hypotheses()[:2], draws, parameters=weights).parameters
        )
    many, one = gradients
    first = "denoiser.transformer_blocks.0.norm1.emb."
    for name in (name for name in one if name.startswith(first)):
        copies = [many[name.replace("blocks.0.", f"blocks.{k}.")] for k in range(len(blocks))]
        torch.testing.assert_close(one[name], torch.stack(copies).sum(0))


def test_adapting_moves_the_shared_embedder_everywhere(tmp_path):
    """Tied weights stay tied while the prior is adapted: the answer is that of a prior whose every copy moved alike."""
    torch.manual_seed(0)
    prior = load_prior(str(dit(tmp_path / "dit")))
    emb = prior.denoiser.transformer_blocks[0].norm1.emb
    for block in prior.denoiser.transformer_blocks:
        block.norm1.emb = emb
    names = prior.class_names
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, len(names)))
    options = {"steps": 2, "draws": 2, "adapt_prior": True, "optimizer": "sgd", "learning_rate": 0.1}
    predictor = Predictor(network, names)
    method = build_method("diffusion-tta", predictor, prior, Classification(names, names), options)
    start = method.init()
    _, after = method.step(start, Inputs(torch.rand(1, 3, 16, 16), ["a"]), 0)
    moved = {n for n, v in after.prior.parameters.items() if not torch.equal(v, start.prior.parameters[n])}
    assert any(".blocks.1." not in name and "emb." in name for name in moved)
    assert not any("blocks.1.norm1.emb" in name for name in start.prior.parameters)
