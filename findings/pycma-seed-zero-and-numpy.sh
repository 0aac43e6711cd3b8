#!/usr/bin/env bash
# pycma takes seed 0 for the clock, and any other seed for numpy's global generator, from which all searches draw.
#
# {"seed": 0}, which people write to have the same run again, gives another one each time. {"seed": 1} calls numpy.random.seed for
# the whole process: what else draws from it (augmentations, shuffles) begins anew with every search, and repeats itself. And no
# search owns its state: after one draw from numpy.random between two of its steps, or another search's first step, it proposes
# something else, so that two searches at once are not the two that run alone. "randn" of a generator of one's own with "seed"
# nan keeps them apart. cma 4.5.0.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "cma==4.5.0" "numpy==2.4.6"
python -W ignore - <<'PYTHON'
import cma
import numpy as np

print("cma", cma.__version__.split()[0], "numpy", np.__version__)


def search(seed, **more):
    return cma.CMAEvolutionStrategy([0.0] * 3, 1.0, {"seed": seed, "verbose": -9, **more})


def same(a, b):
    return bool(np.allclose(a, b))


def proposals(seed, between=lambda: None):
    found = search(seed)
    first = found.ask()
    found.tell(first, [float(x @ x) for x in first])
    between()
    return np.array(found.ask())


again = {seed: same(proposals(seed), proposals(seed)) for seed in (0, 1)}
print("the same proposals again with seed 1:", again[1], "and with seed 0:", again[0])
assert again == {0: False, 1: True}, "the finding no longer holds"
draws = []
for _ in range(2):
    search(1)
    draws.append(np.random.rand(3))
print("numpy.random after each of two searches:", draws[0].round(3).tolist(), draws[1].round(3).tolist())
assert same(*draws), "the finding no longer holds"
disturbed = {"a draw of numpy.random": np.random.rand, "a search with seed 2": lambda: search(2).ask()}
for name, between in disturbed.items():
    print(f"the same proposals with {name} between two steps:", same(proposals(1), proposals(1, between)))
    assert not same(proposals(1), proposals(1, between)), "the finding no longer holds"
generator = np.random.default_rng(0)
np.random.seed(5)
expected = np.random.rand()
np.random.seed(5)
search(np.nan, randn=lambda *shape: generator.standard_normal(shape)).ask()
alone = np.random.rand() == expected
print("numpy.random is left alone by a search with randn of one's own and seed nan:", alone)
assert alone, "the finding no longer holds"
print("still so")
PYTHON
