"""How large are the details in which published code departs from its own equations, and we do not follow it?

    python benchmarks/deviations.py [--count 1000]

Each line names the detail, what was measured on what, N, and a 95 % interval where images were drawn. Details that are
options are measured by `diffcern bench specs/digits-deviations.toml`.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import time
from collections.abc import Iterator

import timm
import torch
import torchvision
from diffusers import DDPMScheduler
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_image, to_pil_image

from diffcern.data import load_dataset, subset
from diffcern.data.shifts import shift
from diffcern.draws import draw
from diffcern.guides import LowPass
from diffcern.likelihood import score
from diffcern.methods import build_method
from diffcern.methods.parameters import choose_parameters
from diffcern.methods.presets import preset_options
from diffcern.metrics import wilson
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.tasks import Classification
from diffcern.types import Inputs

CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def share(right: int, count: int) -> str:
    """`84.5 % [78.8, 88.9]`."""
    low, high = wilson(right, count)
    return f"{100 * right / count:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def rounded_trip(image: Tensor) -> Tensor:
    """Saved as JPEG (quality 75) after a stretch from its least to its greatest value, as torchvision before 0.9 and
    `normalize=True` do, and read again."""
    low, high = image.aminmax()
    with io.BytesIO() as buffer:
        to_pil_image((image - low) / (high - low).clamp(min=1e-5)).save(buffer, "JPEG")
        return to_image(Image.open(buffer)).float() / 255


def saved_images(count: int) -> Iterator[str]:
    """DDA and GDA write purified images as JPEG, stretched per image, and read them again."""
    predictor = load_predictor("weights/cifar10-predictor")
    data = subset(load_dataset("parquet:../shared/data/cifar10/test.parquet", CIFAR), count, seed=0)
    for name, severity in (("clean", 0), ("contrast", 5)):
        right = torch.zeros(2, dtype=torch.long)
        for i in range(len(data)):
            sample = data[i]
            image = shift(sample.image, name, severity, 0, sample.id)
            with torch.no_grad():
                answers = predictor(torch.stack([image, rounded_trip(image)])).argmax(-1)
            right += answers == sample.target
        before, after = (share(int(k), len(data)) for k in right)
        yield f"JPEG and stretch, {name}: accuracy {before}, after the trip {after} (CIFAR-10 test, N = {len(data)})"


def coupled_norms(count: int) -> Iterator[str]:
    """DDA's norm over a batch: what is left of the gradient of one image's own norm."""
    data = load_dataset("embedded:digits")
    images = torch.stack([data[i].image for i in range(min(count, len(data)) // 10 * 10)])
    noisy = images + 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    for size in (4, 10):
        ratios = []
        for a, b in zip(images.split(size), noisy.split(size), strict=True):
            at = b.clone().requires_grad_()
            own = torch.autograd.grad(LowPass(4)(at, a).sum(), at)[0].flatten(1).norm(dim=1)
            joint = torch.autograd.grad(LowPass(4).filter(a - at).norm(), at)[0].flatten(1).norm(dim=1)
            ratios.append(joint / own)
        left = torch.cat(ratios)
        spread = f"{left.min():.2f} to {left.max():.2f}"
        yield f"one norm over {size} images: {left.mean():.2f} of the strength, {spread} (digits, N = {len(images)})"


def two_indices() -> Iterator[str]:
    """DDA noises to t = 505 and denoises from 494."""
    bars = DDPMScheduler(beta_schedule="linear").alphas_cumprod.double()
    levels = [math.sqrt((1 - bars[t]) / bars[t]) for t in (505, 494)]
    yield f"noised at 505, denoised from 494: noise {levels[0] / levels[1]:.3f} times what is told (linear schedule)"


def unreached() -> Iterator[str]:
    """Diffusion-TTA's code moves no parameter that sits beside a module's parts, nor the last layer's."""
    networks = {
        "ResNet-18": torchvision.models.resnet18(),
        "ConvNeXt-T": torchvision.models.convnext_tiny(),
        "ViT-B/32 (torchvision)": torchvision.models.vit_b_32(),
        "ViT-B/32 (timm)": timm.create_model("vit_base_patch32_224"),
    }
    for name, network in networks.items():
        moved = sum(value.numel() for value in choose_parameters(network, "published").values())
        whole = sum(value.numel() for value in network.parameters())
        yield f"parameters that are never moved, {name}: {100 * (1 - moved / whole):.1f} %"


def long_features(count: int) -> Iterator[str]:
    """Its CLIP features are multiplied by 100 without being brought to length 1."""
    labels = ["a red cube", "a blue sphere", "a green cone"]
    clip = load_predictor("embedded:scenes-clip", labels=labels, templates=["{}"])
    data = subset(load_dataset("embedded:scenes"), min(count, 200), seed=0)
    images = torch.stack([data[i].image for i in range(len(data))])
    with torch.no_grad():
        features = clip.model.projection(clip.model.tower(clip.prepare(images)).pooler_output)
        lengths = features.norm(dim=-1)
        own = (100 * torch.nn.functional.normalize(features, dim=-1) @ clip.model.text.T).softmax(-1)
        published = (100 * features @ clip.model.text.T).softmax(-1)
    gradients = [(p * (1 - p)).amax(-1).mean() for p in (own, published)]
    yield (
        f"CLIP features of length {lengths.mean():.1f} in the place of 1: the softmax's slope falls from "
        f"{gradients[0]:.3f} to {gradients[1]:.3f} (embedded:scenes-clip, N = {len(data)})"
    )


def other_frequencies(count: int) -> Iterator[str]:
    """What a trained DiT makes of the other library's frequencies of the time."""
    data = subset(load_dataset("embedded:digits"), min(count, 200), seed=0)
    images = torch.stack([data[i].image for i in range(len(data))])
    targets, ids = torch.tensor([data[i].target for i in range(len(data))]), [data[i].id for i in range(len(data))]
    answers, outputs = [], []
    for shifted in (1.0, 0.0):  # as trained; as another convention has it
        prior = load_prior("embedded:digits")
        for block in prior.denoiser.transformer_blocks:
            block.norm1.emb.time_proj.downscale_freq_shift = shifted
        latents = prior.encode(images)
        draws = draw("stratified", 8, latents, ids, seed=0, num_timesteps=1000)
        errors = score(prior, latents, prior.hypotheses(), draws, weighting="x0")
        answers.append(int((errors.mean.argmin(1) == targets).sum()))
        outputs.append(errors.errors)
    apart = ((outputs[1] - outputs[0]).abs().mean() / outputs[0].mean()).item()
    before, after = (share(k, len(data)) for k in answers)
    yield (
        f"frequencies of the other library: errors {100 * apart:.1f} % apart, Diffusion Classifier {before} -> {after} "
        f"(digits, N = {len(data)})"
    )


def moving_priors(count: int) -> Iterator[str]:
    """What Diffusion-TTA costs with the prior moving too, in turns with the frozen one; presets of one image."""
    data = load_dataset("embedded:digits")
    predictor, prior = load_predictor("embedded:digits"), load_prior("embedded:digits")
    task = Classification(predictor.class_names, prior.class_names)
    for preset in ("small", "paper"):
        options = preset_options("diffusion-tta", preset)
        methods = [
            build_method("diffusion-tta", predictor, prior, task, options | {"adapt_prior": moving})
            for moving in (False, True)
        ]
        seconds: list[list[float]] = [[], []]
        for i in range(7):
            for method, taken in zip(methods, seconds, strict=True):
                started = time.perf_counter()
                method.step(method.init(), Inputs(data[i].image[None], [data[i].id]), 0)
                taken.append(time.perf_counter() - started)
        ratios = sorted(moving / frozen for frozen, moving in zip(*seconds, strict=True))[1:]  # the first warms up
        frozen, moving = (statistics.median(taken) for taken in seconds)
        yield (
            f"Diffusion-TTA, preset {preset}: {frozen:.2f} s with the prior frozen, {moving:.2f} s moving, ratio "
            f"{statistics.median(ratios):.2f} [{ratios[0]:.2f} to {ratios[-1]:.2f}] (digits, 7 images in turns)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    count = parser.parse_args().count
    measured = (two_indices(), coupled_norms(count), unreached(), long_features(count), other_frequencies(count))
    for lines in (*measured, moving_priors(count), saved_images(count)):
        for line in lines:
            print(line, flush=True)


if __name__ == "__main__":
    main()
