#!/usr/bin/env bash
# robustbench 1.1.1 installs without a complaint, and cannot be imported.
#
# `pip install robustbench` brings what its metadata names, among them pyautoattack, and a current setuptools with torch. `import robustbench`
# then asks for pkg_resources, which setuptools no longer has, and after that for a module autoattack, which pyautoattack does not provide
# (it is the other name of the same code; autoattack itself is in no index). Whoever trusts pip finds out at the first import. It also
# wants timm 1.0.9 to the letter, so that nothing which needs a newer one can be installed beside it, although it works with 1.0.31. An older
# setuptools, and pyautoattack under the name that is asked for, make it work.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "torch==2.14.1" "torchvision" "setuptools==84.2.1" "robustbench==1.1.1" "pyautoattack==0.2.0"
lacks() {
    if python -W ignore -c "import robustbench" 2> "$place/said"; then echo "imported: the finding no longer holds" && exit 1; fi
    tail -1 "$place/said" | tee /dev/stderr | grep -q "No module named '$1'" || { echo "the finding no longer holds" && exit 1; }
}
lacks pkg_resources
pip install --quiet "setuptools==80.10.2"
lacks autoattack
python -W ignore - <<'PYTHON'
import sys

import pyautoattack.state

sys.modules["autoattack"], sys.modules["autoattack.state"] = pyautoattack, pyautoattack.state
import robustbench.eval

print("imported, with setuptools 80 and pyautoattack by the name of autoattack")
print("still so")
PYTHON
