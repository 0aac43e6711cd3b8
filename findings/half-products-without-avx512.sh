#!/usr/bin/env bash
# torch, on a CPU without AVX-512: what a product of half-precision matrices costs depends on their layout, by ten times.
#
# Everybody expects half precision to be slow where no instruction multiplies it, and equally so for products of one
# size. On an AVX2 processor a product a @ b of 384 x 384 takes about 35 times as long as in float32; the same numbers
# with the right matrix laid out by columns (a linear layer's weight, the keys of attention) about 9 times; with the left
# one so about 4 times in bfloat16 and 16 in float16. In float32 all three take the same. So a layer is slow, and
# attention's second product, of the weights with the values, is four times slower still; a benchmark of `a @ b` says
# nothing about a network. torch 2.14.1, one thread. On a CPU with AVX-512 or AMX other kernels are taken, and this says
# so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "torch==2.14.1" numpy
python - <<'PYTHON'
import time

import torch

capability = torch.backends.cpu.get_cpu_capability()
print("torch", torch.__version__, "on a CPU with", capability)
if capability != "AVX2":
    raise SystemExit(print("nothing to see but with AVX2 alone"))
torch.set_num_threads(1)
SIDE = 384


def seconds(product):
    """The best of some."""
    times = []
    for _ in range(8):
        start = time.perf_counter()
        product()
        times.append(time.perf_counter() - start)
    return min(times[1:])


rows = torch.randn(SIDE, SIDE)
columns = torch.randn(SIDE, SIDE).t()  # the same size, laid out the other way
single = seconds(lambda: rows @ rows)
found = {}
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    a, b = rows.to(dtype), columns.to(dtype)
    assert not b.is_contiguous() and torch.allclose((a @ b).float(), rows @ columns, rtol=0.1, atol=2)
    layouts = {"rows @ rows": (a, a), "rows @ columns": (a, b), "columns @ rows": (b, a)}
    found[dtype] = {name: seconds(lambda: left @ right) / single for name, (left, right) in layouts.items()}
    print(f"{str(dtype):15}", ", ".join(f"{name} {ratio:.1f}" for name, ratio in found[dtype].items()))
assert max(found[torch.float32].values()) < 2 * min(found[torch.float32].values()), "float32 minds the layout too"
for dtype in (torch.bfloat16, torch.float16):
    slowest = found[dtype].pop("rows @ rows")
    assert slowest > 10 and slowest > 1.7 * max(found[dtype].values()), "the finding no longer holds"
print("still so")
PYTHON
