"""Seconds and memory per image of each method on the published priors' architectures, with random weights.

    python benchmarks/architectures.py --prior dit-xl-2-256 --device cuda --dtype bfloat16
    python benchmarks/architectures.py --prior sd-2.1-base --device cuda --dtype bfloat16
    python benchmarks/architectures.py --prior tiny                      (anywhere, in seconds)

Speed and memory do not depend on what the weights are. Diffusion-TTA stands beside the published loop's schedule (see
tta_speed.py): same model, draws and machine, fp32.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import timm
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel, UNet2DConditionModel
from tta_speed import cut_graph, published_loop

from diffcern.draws import draw
from diffcern.labels import vocabulary_of
from diffcern.methods import build_method
from diffcern.predictors import Predictor
from diffcern.priors import Prior
from diffcern.priors.dit import DiTPrior
from diffcern.priors.stable_diffusion import StableDiffusionPrior
from diffcern.tasks import Classification
from diffcern.types import Inputs

LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def autoencoder(width: int = 128) -> AutoencoderKL:
    """Stable Diffusion's, which DiT uses too: 8 pixels per latent pixel."""
    return AutoencoderKL(
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )


def dit(names: tuple[str, ...], *, heads: int, head: int, layers: int, sample: int, vae: int) -> Prior:
    transformer = DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=head,
        in_channels=4,
        out_channels=8,
        num_layers=layers,
        sample_size=sample,
        patch_size=2,
        num_embeds_ada_norm=len(names),
    )
    return DiTPrior(transformer, autoencoder(vae), DDIMScheduler(), names)


def unet_of_sd() -> UNet2DConditionModel:
    """That of 2.1-base."""
    return UNet2DConditionModel(
        sample_size=64, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
    )


def stable_diffusion(names: tuple[str, ...]) -> Prior:
    """2.1-base, but for its text encoder: prompts cost nothing per image, random embeddings stand for them."""

    def encode_prompt(prompt: list[str], **_: Any) -> tuple[torch.Tensor, None]:
        return torch.randn(len(prompt), 77, 1024), None

    text = SimpleNamespace(device=torch.device("cpu"))
    pipeline = SimpleNamespace(
        vae=autoencoder(), scheduler=DDIMScheduler(**LATENT), encode_prompt=encode_prompt, text_encoder=text
    )
    return StableDiffusionPrior(pipeline, unet_of_sd()).with_labels(vocabulary_of(names, None))


PRIORS: dict[str, Callable[[tuple[str, ...]], Prior]] = {
    "dit-xl-2-256": lambda names: dit(names, heads=16, head=72, layers=28, sample=32, vae=128),
    "sd-2.1-base": stable_diffusion,
    "tiny": lambda names: dit(names, heads=2, head=16, layers=2, sample=8, vae=32),
}


def measured(function: Callable[[], object], device: torch.device, repeats: int) -> tuple[float, float]:
    """Median seconds after one warm-up, and peak memory in GiB (of the process on a CPU)."""
    function()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    if device.type == "cuda":
        return statistics.median(seconds), torch.cuda.max_memory_allocated(device) / 2**30
    return statistics.median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", choices=PRIORS, default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--draws", type=int, default=180, help="of Diffusion-TTA per step")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rows", type=int, default=64, help="network rows at a time")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    device, names = torch.device(options.device), tuple(f"class {k}" for k in range(options.classes))
    prior = PRIORS[options.prior](names).to(device)
    predictor = Predictor(timm.create_model("resnet18", num_classes=len(names)), names, size=224).to(device)
    image = torch.rand(1, 3, 256, 256, device=device)
    task, inputs = Classification(names, names), Inputs(image, ["x"])
    size = sum(p.numel() for p in prior.denoiser.parameters()) / 1e6
    print(f"{options.prior}: {size:.0f} M parameters, {len(names)} classes, {options.steps} x {options.draws} draws")
    print(f"{'':44}{'evaluations':>12}{'seconds':>9}{'GiB':>7}{'ratio':>7}")

    latents = prior.encode(image)
    draws = [
        draw("uniform", options.draws, latents, ["x"], seed=0, num_timesteps=prior.num_timesteps, update=i)
        for i in range(options.steps)
    ]
    theta = [p.requires_grad_() for p in predictor.parameters()]
    evaluations = options.steps * options.draws

    def show(what: str, count: int, function: Callable[[], object], baseline: float | None = None) -> float:
        seconds, memory = measured(function, device, options.repeats)
        ratio = f"{baseline / seconds:7.2f}" if baseline else ""
        print(f"{what:44}{count:12d}{seconds:9.3f}{memory:7.2f}{ratio}", flush=True)
        return seconds

    published = show(
        "Diffusion-TTA, published schedule, float32",
        evaluations,
        lambda: published_loop(predictor, prior, image, draws, theta),
    )
    moving = {"steps": options.steps, "draws": options.draws, "rows": options.rows, "adapt_prior": True}
    built = build_method("diffusion-tta", predictor, prior, task, moving)
    show(
        "... and the prior moves too, ours, float32",
        evaluations,
        lambda: built.step(built.init(), inputs, 0),
        published,
    )
    torch.nn.Module.to(prior.denoiser, getattr(torch, options.dtype))
    show(
        f"Diffusion-TTA, ours, {options.dtype}",
        evaluations,
        lambda: cut_graph(predictor, prior, image, draws, theta, rows=options.rows),
        published,
    )
    for label, method, settings, count in (
        ("Diffusion Classifier, 250 draws", "diffusion-classifier", {"draws": 250}, 250 * len(names)),
        ("... keep 3, 1 of 25, 250", "diffusion-classifier", {"keep": [3, 1], "samples": [25, 250]}, None),
        ("DUSA, its cheap form", "dusa", {"adapt_prior": False}, None),
    ):
        built = build_method(method, predictor, prior, task, {**settings, "rows": options.rows})
        prediction, _ = built.step(built.init(), inputs, 0)
        count = count or prediction.costs[0].nfe_forward
        show(f"{label}, {options.dtype}", count, lambda built=built: built.step(built.init(), inputs, 0))


if __name__ == "__main__":
    main()
