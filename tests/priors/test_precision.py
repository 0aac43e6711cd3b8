"""Half precision gives the answers of fp32: on the embedded prior here, on CIFAR-10's by `benchmarks/precision.py`."""

import pytest
import torch

from diffcern.data import load_dataset, subset
from diffcern.draws import draw
from diffcern.likelihood import score
from diffcern.priors import load_prior


@pytest.mark.slow
def test_bfloat16_picks_the_same_class():
    data = subset(load_dataset("embedded:digits/validation"), 150, seed=0)
    images, ids = torch.stack([data[i].image for i in range(len(data))]), list(data.ids)
    chosen = []
    for dtype in (torch.float32, torch.bfloat16):
        prior = load_prior("embedded:digits", dtype)
        latents = prior.encode(images)
        draws = draw("stratified", 4, latents, ids, seed=0, num_timesteps=prior.num_timesteps)
        chosen.append(score(prior, latents, prior.hypotheses(), draws, weighting="x0").mean.argmin(1))
    assert (chosen[0] == chosen[1]).float().mean() >= 0.99
