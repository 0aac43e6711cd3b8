#!/usr/bin/env bash
# AutoencoderRAE(encoder_type="siglip2") of diffusers 0.42.1 cannot be built with transformers 5.24, which it installs beside.
#
# The error (no attribute 'vision_model') speaks of neither package: transformers moved what a SiglipVisionModel holds one level
# up (5.5 still had it where diffusers looks, 5.6 not), and diffusers asks for transformers without an upper bound. The other two
# encoders build, DINOv2 by default, so that an installation looks sound until one of SigLIP 2 is loaded.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
cat > "$place/build.py" <<'PYTHON'
import sys

import diffusers
import transformers
from diffusers import AutoencoderRAE

sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
sizes = {f"decoder_{name}": value for name, value in sizes.items()} | {"encoder_hidden_size": 64, "encoder_num_hidden_layers": 1}
said = {}
for encoder in ("dinov2", "mae", "siglip2"):
    try:
        AutoencoderRAE(encoder, encoder_input_size=56, **sizes)
        said[encoder] = "built"
    except AttributeError as error:
        said[encoder] = str(error)
print("diffusers", diffusers.__version__, "transformers", transformers.__version__, said)
assert said["dinov2"] == said["mae"] == "built"
assert ("vision_model" if sys.argv[1] == "fails" else "built") in said["siglip2"], "the finding no longer holds"
PYTHON
pip install --quiet "torch==2.14.1" "diffusers==0.42.1" "transformers==5.24.0"
python -W ignore "$place/build.py" fails
pip install --quiet "diffusers==0.42.1" "transformers==5.5.0"
python -W ignore "$place/build.py" builds
echo "still so"
