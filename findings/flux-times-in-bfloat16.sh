#!/usr/bin/env bash
# FLUX of diffusers hears the time in the latents' precision: in bfloat16, up to seven neighbours of 1,000 times are the same one.
#
# FluxTransformer2DModel and Flux2Transformer2DModel take a time in [0, 1], turn it into the dtype of the latents and multiply
# by 1,000 in that; sines and cosines are taken of what is left, which above 512 is every fourth number. A time in float32 is no
# help, and guidance goes the same way (3.5 becomes 3,504). It is no rounding like any other in bfloat16: at times that bfloat16
# has, outputs are 0.7 % away from those of the same numbers in float32; at others they are those of another time, here 20 to 36 %
# away. Who scores or trains at any time in bfloat16 has 500 of 1,000 times, and does not hear of it. diffusers 0.42.1.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "torch==2.14.1" "diffusers==0.42.1" "transformers==5.24.0"
python -W ignore - <<'PYTHON'
import copy
from collections import Counter

import diffusers
import torch
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel

print("diffusers", diffusers.__version__, "torch", torch.__version__)
diffusers.utils.logging.set_verbosity_error()
torch.manual_seed(0)
sizes = {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 32, "num_attention_heads": 4}
sizes |= {"joint_attention_dim": 16, "guidance_embeds": True}
one = FluxTransformer2DModel(pooled_projection_dim=16, axes_dims_rope=(8, 12, 12), **sizes)
two = Flux2Transformer2DModel(axes_dims_rope=(8, 8, 8, 8), **sizes)
image, text, pooled = torch.randn(1, 16, 16), torch.randn(1, 4, 16), torch.randn(1, 16)
grid = torch.arange(4.0)
places = torch.cartesian_prod(torch.zeros(1), grid, grid, torch.zeros(1))


@torch.no_grad()
def answer(network, times, guidance=4.0):
    """What the network says of one image and text at these times; guidance: 4,000 in thousandths, which bfloat16 has."""
    n, axes = len(times), len(network.config.axes_dims_rope)
    given = {"hidden_states": image, "encoder_hidden_states": text} | ({"pooled_projections": pooled} if axes == 3 else {})
    given = {name: value.repeat_interleave(n, 0).to(network.dtype) for name, value in given.items()}
    given |= {"img_ids": places[:, :axes], "txt_ids": torch.zeros(4, axes), "guidance": torch.full((n,), guidance)}
    return network(timestep=times, **given).sample.float().flatten(1)


def apart(a, b):
    return ((a - b).norm(dim=1) / b.norm(dim=1)).mean().item()


exact, others = torch.tensor([0.0625, 0.125, 0.25, 0.5, 1.0]), torch.tensor([0.301, 0.549, 0.701, 0.801, 0.906])
for network in (one, two):
    for name, parameter in network.named_parameters():
        if "time" in name and parameter.ndim > 1:  # a new network's small weights would hide what it is told
            torch.nn.init.normal_(parameter, std=2 * parameter.shape[1] ** -0.5)
    half = copy.deepcopy(network.eval()).to(torch.bfloat16)
    network.load_state_dict(half.state_dict())  # the same numbers: only what is computed differs
    heard = []
    embedder = half.time_text_embed if network is one else half.time_guidance_embed
    embedder.time_proj.register_forward_hook(lambda module, given, embedded: heard.append(given[0].float()))
    answer(half, torch.arange(1, 1001) / 1000, 3.5)
    times, guidance = heard
    most = max(Counter(times.tolist()).values())
    print(f"{type(network).__name__} hears {len(times.unique())} of 1,000 times, one for {most} at most")
    print("  at 700 to 709:", times[699:709].int().tolist(), "and of guidance 3.5:", guidance[0].item())
    assert len(times.unique()) == 500 and most >= 4 and guidance[0] == 3504, "the finding no longer holds"
    near = apart(answer(half, exact), answer(network, exact))
    heard.clear()
    said = answer(half, others)
    far, told = apart(said, answer(network, others)), apart(said, answer(network, heard[0] / 1000))
    print(f"  from float32 at times that bfloat16 has {near:.3f}, at others {far:.3f}, given what is heard then {told:.3f}")
    assert far > 10 * max(near, told), "the finding no longer holds"
print("still so")
PYTHON
