#!/usr/bin/env bash
# torch.compile: the gradient by the condition of a DiT's block is NaN, in bfloat16, on a CPU with AVX-512.
#
# An adaLN block is x + gate * linear(norm(x) * (1 + scale)); its condition (gate, scale) is what one differentiates for.
# Tokens that are cut from an image, flatten(2).transpose(1, 2) as every patch embedding does, are laid out by channel.
# Of those, half of the compiled gradient by the condition is NaN, without a warning, where the eager one is finite; the
# same values in contiguous memory give the eager gradient, and so does float32, and code for 256-bit vectors
# (torch._inductor.config.cpp.simdlen). The forward pass is right, so that nothing else tells. torch 2.14.1, Inductor's
# C++ backend, width 288, 64 tokens. On a CPU without AVX-512 there is nothing to see, and this says so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
command -v g++ > /dev/null || { echo "needs g++"; exit 1; }
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "torch==2.14.1" numpy
export TORCHINDUCTOR_CACHE_DIR="$place/cache"
python - <<'PYTHON'
import torch
from torch import nn
from torch._inductor import config

capability = torch.backends.cpu.get_cpu_capability()
print("torch", torch.__version__, "on a CPU with", capability)
if capability != "AVX512":
    raise SystemExit(print("nothing to see without AVX-512"))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, width)

    def forward(self, x, gate):
        gate = gate[:, None]
        return x + gate * self.linear(self.norm(x) * (1 + gate))


def compared(dtype, contiguous, simdlen=None):
    """The share of finite numbers in the compiled gradient, and how far the output and they are from the eager ones."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    config.cpp.simdlen = simdlen
    block = Block(288).to(dtype).requires_grad_(False)
    patches = torch.randn(64, 288, 8, 8).to(dtype).flatten(2).transpose(1, 2)
    tokens = patches.contiguous() if contiguous else patches
    gate = torch.randn(64, 288).to(dtype).requires_grad_()
    found = []
    for function in (block, torch.compile(block)):
        output = function(tokens, gate)
        found.append((output.detach(), torch.autograd.grad(output.float().square().mean(), gate)[0]))
    (output, eager), (output_compiled, compiled) = found
    assert eager.isfinite().all() and torch.allclose(output, output_compiled, atol=0.1, rtol=0.1)
    right = torch.allclose(compiled, eager, rtol=0.1, atol=0.05 * eager.abs().max().item())
    return compiled.isfinite().float().mean().item(), right


seen = {
    "bfloat16, patches": compared(torch.bfloat16, False),
    "bfloat16, contiguous": compared(torch.bfloat16, True),
    "bfloat16, patches, 256 bits": compared(torch.bfloat16, False, 256),
    "float32, patches": compared(torch.float32, False),
}
for name, (finite, right) in seen.items():
    print(f"{name:28} finite {finite:.0%}, as the eager gradient: {right}")
wrong = {name for name, (finite, right) in seen.items() if not right}
assert wrong == {"bfloat16, patches"}, "the finding no longer holds"
print("still so")
PYTHON
