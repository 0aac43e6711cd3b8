#!/usr/bin/env bash
# transformers 5.10.1 asks for torch>=2.4 and cannot give an AutoImageProcessor with torch 2.6, which it calls available.
#
# Its metadata (extra "torch") say torch>=2.4, is_torch_available() is true, and AutoModel comes. AutoImageProcessor does not: a
# module about quantisation is read on the way, and names a dtype (float8_e8m0fnu) that torch has from 2.7. What the user is told is
# that the module could not be imported and that its requirements might not be "defined correctly". Whoever tests the lowest versions
# that transformers declares meets it; a floor of torch 2.7 is the true one.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "torch==2.6.0" "torchvision==0.21.0" "transformers==5.10.1" "numpy<3" pillow
python - <<'PYTHON'
import importlib
import importlib.metadata

import torch
import transformers
from transformers.utils import is_torch_available

declared = [r for r in importlib.metadata.requires("transformers") if r.startswith("torch>") and 'extra == "torch"' in r]
print("torch", torch.__version__, "transformers", transformers.__version__, "declares", declared)
print("is_torch_available:", is_torch_available())
assert is_torch_available() and declared == ['torch>=2.4; extra == "torch"'], "declared otherwise: the finding no longer holds"
from transformers import AutoModel  # noqa: E402

print("AutoModel:", AutoModel.__name__)
try:
    from transformers import AutoImageProcessor  # noqa: F401, E402
except ModuleNotFoundError as error:
    print("AutoImageProcessor:", error)
else:
    raise SystemExit("AutoImageProcessor can be imported: the finding no longer holds")
try:
    importlib.import_module("transformers.models.auto.image_processing_auto")
except AttributeError as error:
    print("for this reason:", error)
    assert "float8_e8m0fnu" in str(error)
print("still so")
PYTHON
