"""What more a CPU could give: memory layout of a U-Net, threads, and what could be fetched ahead.

    python benchmarks/layouts.py [--repeats 5]

U-Nets with channels last against channels first; a transformer with one thread against two, and with the fused
attention kernel against plain products; and the share of an image's time that reading it and drawing its noise take,
which is all that prefetching could hide.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from PIL import Image

from diffcern.data.images import decode
from diffcern.draws import draw
from diffcern.likelihood import condition_gradient, score
from diffcern.priors import Prior
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.types import Condition

NAMES = tuple(str(k) for k in range(10))


def seconds(function: Callable[[], object], repeats: int) -> float:
    function()
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def of_unet(dtype: torch.dtype, layout: torch.memory_format, gradient: bool) -> Callable[[], object]:
    prior = native_prior(NativeConfig("unet", "eps", 32, 3, NAMES), width=64, depth=2, heads=2, patch=4)
    torch.nn.Module.to(prior.denoiser, dtype=dtype, memory_format=layout)
    return asked(prior, 16, gradient)


def of_dit(gradient: bool, dtype: torch.dtype = torch.bfloat16, fused: bool = False) -> Callable[[], object]:
    prior = native_prior(NativeConfig("dit", "eps", 32, 3, NAMES), width=192, depth=6, heads=3, patch=4)
    torch.nn.Module.to(prior.denoiser, dtype)
    for module in prior.denoiser.modules() if fused else ():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor2_0())
    return asked(prior, 64, gradient)


def asked(prior: Prior, count: int, gradient: bool) -> Callable[[], object]:
    """So many draws of one image, with the gradient by the condition or without."""
    latents, even = torch.randn(1, 3, 32, 32), Condition(classes=torch.full((1, 10), 0.1))
    draws = draw("uniform", count, latents, ["x"], seed=0, num_timesteps=1000)
    if gradient:
        return lambda: condition_gradient(prior, latents, even, draws, rows=64)
    return torch.no_grad()(lambda: score(prior, latents, even, draws, rows=64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.manual_seed(0)
    torch.set_num_threads(2)
    print("seconds for channels first and last, and their ratio: a U-Net of 64 channels at 32 px, 16 rows")
    for dtype in (torch.float32, torch.bfloat16):
        for gradient in (False, True):
            first, last = (
                seconds(of_unet(dtype, layout, gradient), repeats)
                for layout in (torch.contiguous_format, torch.channels_last)
            )
            what = f"{str(dtype)[6:]}, {'with' if gradient else 'without'} gradient"
            print(f"{what:32}{first:9.3f}{last:9.3f}{first / last:8.2f}")
    print("seconds for one and two threads, and their ratio: a transformer of 192 x 6, bf16, 64 rows")
    for gradient in (False, True):
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(seconds(of_dit(gradient), repeats))
        what = f"{'with' if gradient else 'without'} gradient"
        print(f"{what:32}{found[0]:9.3f}{found[1]:9.3f}{found[0] / found[1]:8.2f}")
    print("seconds for the fused attention kernel and for plain products, and their ratio: the same transformer")
    for dtype in (torch.float32, torch.bfloat16):
        for gradient in (False, True):
            fused, plain = (seconds(of_dit(gradient, dtype, kernel), repeats) for kernel in (True, False))
            what = f"{str(dtype)[6:]}, {'with' if gradient else 'without'} gradient"
            print(f"{what:32}{fused:9.3f}{plain:9.3f}{fused / plain:8.2f}")
    file = io.BytesIO()
    Image.effect_noise((500, 375), 60).convert("RGB").save(file, "jpeg")
    image = seconds(lambda: decode(file.getvalue(), "a.jpg"), repeats)
    latents = torch.randn(1, 3, 32, 32)
    noise = seconds(lambda: draw("stratified", 180, latents, ["x"], seed=0, num_timesteps=1000), repeats)
    print(
        f"milliseconds to decode a JPEG of 500 x 375: {1e3 * image:.1f}; to draw 180 noises at 32 px: {1e3 * noise:.1f}"
    )


if __name__ == "__main__":
    main()
