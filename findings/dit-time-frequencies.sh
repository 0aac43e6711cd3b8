#!/usr/bin/env bash
# diffusers' DiT is told the time with other frequencies than the published DiT was trained with.
#
# Published (Peebles & Xie 2023, as in guided diffusion and the original transformer): f_i = exp(-ln(10000) i / half).
# diffusers 0.35.2's DiTTransformer2DModel, the class that facebook/DiT-XL-2-256 was converted to, divides by half - 1
# (Timesteps with downscale_freq_shift=1, not settable through its config). Converted weights load without a word, and the
# network hears times that are off by up to 7 % in the lower frequencies: at t = 999 single components differ by 1.4.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "torch==2.13.0" "diffusers==0.35.2" "transformers==4.57.1" "numpy<3"
python - <<'PYTHON'
import math
import diffusers, torch
from diffusers import DiTTransformer2DModel

print("diffusers", diffusers.__version__, "torch", torch.__version__)
model = DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=8, in_channels=4, num_layers=1, sample_size=8)
project = model.transformer_blocks[0].norm1.emb.time_proj
half = 128


def embedding(t, divisor):
    angles = [t * math.exp(-math.log(10_000) * i / divisor) for i in range(half)]
    return torch.tensor([*map(math.cos, angles), *map(math.sin, angles)])


for t in (1, 250, 999):
    found = project(torch.tensor([t]))[0]
    published, theirs = embedding(t, half), embedding(t, half - 1)
    print(f"t = {t}: to the published formula {(found - published).abs().max():.3f}, "
          f"to the one with half - 1 {(found - theirs).abs().max():.5f}")
    assert (found - theirs).abs().max() < 1e-3, "it follows neither: the finding no longer holds"
assert (project(torch.tensor([999]))[0] - embedding(999, half)).abs().max() > 0.5
assert not any("freq" in key for key in model.config), "the config can say it now"
print("still so")
PYTHON
