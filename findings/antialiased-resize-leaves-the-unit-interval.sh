#!/usr/bin/env bash
# A bilinear, antialiased resize of pixels in [0, 1] gives values above 1.
#
# Bilinear weights are non-negative and sum to 1, so no overshoot is expected (bicubic is known for it). torch 2.13's kernel
# normalises them in floating point, and where a picture is saturated the sum of weights comes out as 1 + 1.2e-7. A check
# that pixels lie in [0, 1], or torchvision's to_pil_image after scaling in another dtype, then trips over white areas.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "torch==2.13.0" "numpy<3"
python - <<'PYTHON'
import torch
from torch.nn.functional import interpolate

print("torch", torch.__version__)
white = torch.ones(1, 3, 375, 500)
above = 0
for size in (224, 232, 256, 299, 331, 384):
    shape = (size, round(size * 500 / 375))
    small = interpolate(white, shape, mode="bilinear", antialias=True, align_corners=False)
    above += int((small > 1).sum())
    print(f"375 x 500 -> {shape[0]} x {shape[1]}: largest {small.max().item():.9f}, above 1: {(small > 1).float().mean():.1%}")
assert above > 0, "no value above 1 any more: the finding no longer holds"
print("still so")
PYTHON
