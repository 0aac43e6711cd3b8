#!/usr/bin/env bash
# robustbench 1.1.1 looks for severity s at row 10,000 (s - 1) of a corruption's file, however long the file is.
#
# load_cifar10c takes n_examples and a folder with CIFAR-10-C's files, so a smaller stack of the same layout (five severities of a hundred
# images, labels.npy of as many) looks like something it would read. It answers without a word: severity 1 with n_examples above a
# hundred is a mixture of all severities, and every other severity is no images at all beside as many labels as were asked for; clean_accuracy
# then divides by zero. Files of few images need 50,000 rows too. And benchmark(threat_model="corruptions"), which would read them all, ends on
# CIFAR before the first image: it calls its own loader with an argument that this has not.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "torch==2.14.1" "torchvision" "setuptools==80.10.2" "robustbench==1.1.1" "pyautoattack==0.2.0"
cd "$place"
python -W ignore - <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import pyautoattack.state
import torch

sys.modules["autoattack"], sys.modules["autoattack.state"] = pyautoattack, pyautoattack.state  # see the other finding
from robustbench.data import CORRUPTIONS, load_cifar10c
from robustbench.eval import corruptions_evaluation
from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

n, folder = 100, Path("CIFAR-10-C")
folder.mkdir()
severities = np.repeat(np.arange(1, 6, dtype=np.uint8), n)  # each image shows its severity
np.save(folder / "labels.npy", np.zeros(5 * n, dtype=np.int64))
for name in CORRUPTIONS:
    np.save(folder / f"{name}.npy", severities[:, None, None, None] * np.ones((1, 32, 32, 3), dtype=np.uint8))
found = {}
for examples, severity in ((100, 1), (500, 1), (100, 2), (100, 5)):
    x, y = load_cifar10c(examples, severity, ".", False, ["fog"])
    found[examples, severity] = (len(x), len(y), (x * 255).round().unique().int().tolist())
    print(f"asked for {examples} of severity {severity}: {len(x)} images of severities {found[examples, severity][2]}, {len(y)} labels")
assert found[100, 1] == (100, 100, [1])
assert found[500, 1] == (500, 500, [1, 2, 3, 4, 5]), "the finding no longer holds"
assert found[100, 2] == found[100, 5] == (0, 100, []), "the finding no longer holds"
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10)).eval()
asked = (50, ".", BenchmarkDataset.cifar_10, ThreatModel.corruptions, torch.device("cpu"), model, n, False, None, None)
try:
    corruptions_evaluation(*asked)
except TypeError as error:
    print("corruptions_evaluation:", error)
    assert "prepr" in str(error)
else:
    raise AssertionError("the finding no longer holds")
print("still so")
PYTHON
