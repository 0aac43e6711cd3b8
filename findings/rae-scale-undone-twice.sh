#!/usr/bin/env bash
# AutoencoderRAE of diffusers applies its scaling factor itself, and DiTPipeline, which takes it, divides by it once more.
#
# With AutoencoderKL, encode and decode know nothing of config.scaling_factor: who calls them multiplies and divides, as
# DiTPipeline does. AutoencoderRAE has a setting of that name too, and does both inside; nothing tells callers which kind they
# hold. DiTPipeline, annotated for AutoencoderKL, runs with either, and hands latents that are divided by the factor to a decode
# that divides again. With a factor of 1, the default, nothing shows; with 0.9 pixels of a small network's pictures are up to 0.07
# (of 1) away, without a warning. diffusers 0.42.1.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "torch==2.14.1" "diffusers==0.42.1" "transformers==5.24.0"
python -W ignore - <<'PYTHON'
import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, AutoencoderRAE, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

print("diffusers", diffusers.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
pixels = torch.rand(2, 3, 56, 56, generator=torch.manual_seed(1))


def representation(factor):
    torch.manual_seed(0)
    sizes = {"encoder_hidden_size": 64, "encoder_num_hidden_layers": 1, "encoder_input_size": 56, "patch_size": 4}
    decoder = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vae = AutoencoderRAE(scaling_factor=factor, **sizes, **{f"decoder_{name}": value for name, value in decoder.items()})
    for parameter in vae.decoder.parameters():  # a new network's small weights would give grey pictures
        torch.nn.init.normal_(parameter, std=0.7)
    return vae.eval()


def convolutional(factor):
    torch.manual_seed(0)
    return AutoencoderKL(scaling_factor=factor, latent_channels=4, block_out_channels=(8,), norm_num_groups=4).eval()


with torch.no_grad():
    kl = [convolutional(factor).encode(pixels).latent_dist.mean for factor in (1.0, 0.9)]
    rae = [representation(factor).encode(pixels).latent for factor in (1.0, 0.9)]
ratios = [(scaled / plain).median().item() for plain, scaled in (kl, rae)]
print(f"encode with factor 0.9 gives its latents times: AutoencoderKL {ratios[0]:.3f}, AutoencoderRAE {ratios[1]:.3f}")
assert [round(ratio, 3) for ratio in ratios] == [1.0, 0.9], "the finding no longer holds"

vae = representation(0.9)
network = DiTTransformer2DModel(2, 8, in_channels=64, out_channels=64, num_layers=1, sample_size=4)
pipe = DiTPipeline(network.eval(), vae, DDIMScheduler())
pipe.set_progress_bar_config(disable=True)
step, decode, made, decoded = pipe.scheduler.step, vae.decode, [], []
pipe.scheduler.step = lambda *given: made.append(step(*given)) or made[-1]
vae.decode = lambda latents: decoded.append(latents) or decode(latents)
images = pipe([1, 2], guidance_scale=1, num_inference_steps=4, generator=torch.manual_seed(0), output_type="pt").images
last = made[-1].prev_sample
print(f"of the last latents, decode gets {(decoded[0] / last).median().item():.4f} times, and divides by 0.9 itself")
assert torch.allclose(decoded[0], last / 0.9), "the finding no longer holds"
with torch.no_grad():
    once = (decode(last).sample / 2 + 0.5).clamp(0, 1)
apart = (images - once).abs().max().item()
print(f"largest difference of pictures in [0, 1] to one division: {apart:.3f}")
assert apart > 0.01, "the finding no longer holds"
print("still so")
PYTHON
