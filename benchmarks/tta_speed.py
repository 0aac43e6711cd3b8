"""Times Diffusion-TTA's update against the published loop's schedule: same machine, model and draws, one run.

Published: for each of 12 micro-batches of 15 draws, predictor forward, prior forward, backward through both with
gradients for the prior's weights too, fp32. Ours: the graph is cut at the condition, the predictor runs once per
step, the prior is frozen, its chunks are large, it runs in bf16, its blocks are compiled, and (`cut`, off by default)
the first quarter of them is left out of the backward pass.

    python benchmarks/tta_speed.py [--steps 5] [--draws 180] [--width 288 --depth 6] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import timm
import torch
from torch import Tensor, nn

from diffcern.draws import Draws, draw
from diffcern.errors import DiffcernError
from diffcern.likelihood import condition_gradient, denoising_error
from diffcern.predictors import Predictor
from diffcern.priors.base import Prior
from diffcern.priors.blocks import compile_regions, cut_backward
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.types import Condition

MICRO_BATCH = 15  # 180 draws in 12 parts: 60 predictor passes in 5 steps
CHANGES: dict[str, Callable[[Prior], object]] = {  # each on top of those before it
    "cut graph, frozen prior": lambda prior: None,
    "... and bf16": lambda prior: prior.bfloat16(),
    "... and compiled blocks": lambda prior: compile_regions(prior.denoiser),
    "... and cut = 0.25": lambda prior: cut_backward(prior.denoiser, 0.25),
}


def published_loop(predictor: Predictor, prior: Prior, image: Tensor, draws: list[Draws], theta: list[Tensor]) -> None:
    """The schedule of the published code, in the library's own terms."""
    prior.requires_grad_(True)
    optimizer = torch.optim.Adam(theta, 1e-5)
    latents = prior.encode(image)
    for step in draws:
        optimizer.zero_grad()
        for part in torch.arange(step.count).split(MICRO_BATCH):
            condition = torch.softmax(predictor(image), -1).expand(len(part), -1)
            t, noise, z = step.timesteps[0, part], step.noise[0, part], latents.expand(len(part), -1, -1, -1)
            denoised = prior(prior.add_noise(z, t, noise), t, Condition(classes=condition))
            error = denoising_error(denoised, z, noise, t / prior.num_timesteps).mean()
            (error * len(part) / step.count).backward()
        optimizer.step()
        prior.zero_grad(set_to_none=True)
    prior.requires_grad_(False)


def cut_graph(
    predictor: Predictor, prior: Prior, image: Tensor, draws: list[Draws], theta: list[Tensor], *, rows: int
) -> None:
    """Our schedule: one predictor pass per step."""
    optimizer = torch.optim.Adam(theta, 1e-5)
    latents = prior.encode(image)
    for step in draws:
        optimizer.zero_grad()
        condition = torch.softmax(predictor(image), -1)
        result = condition_gradient(prior, latents, Condition(classes=condition), step, rows=rows)
        condition.backward(result.gradient.classes)
        optimizer.step()


def timed(function, predictor: nn.Module, *arguments, repeats: int) -> tuple[float, Tensor]:
    """Median seconds, and the flattened weights that the update led to."""
    start = {name: value.clone() for name, value in predictor.state_dict().items()}
    seconds = []
    for _ in range(repeats):
        predictor.load_state_dict(start)
        theta = [p.requires_grad_() for p in predictor.parameters()]
        begin = time.perf_counter()
        function(predictor, *arguments, theta)
        seconds.append(time.perf_counter() - begin)
    moved = torch.cat([(p.detach() - start[name]).flatten() for name, p in predictor.named_parameters()])
    predictor.load_state_dict(start)
    return statistics.median(seconds), moved


def profile(prior: Prior, latents: Tensor, draws: Draws, rows: int) -> None:
    """Operators of one gradient by the condition, by their own time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    even = Condition(classes=torch.full((1, 10), 0.1))
    condition_gradient(prior, latents, even, draws, rows=rows)
    with profiled(activities=[ProfilerActivity.CPU]) as found:
        condition_gradient(prior, latents, even, draws, rows=rows)
    operators = sorted(found.key_averages(), key=lambda each: -each.self_cpu_time_total)
    print(f"in all {sum(each.self_cpu_time_total for each in operators) / 1e3:.0f} ms")
    for each in operators[:14]:
        print(f"{each.key:32}{each.self_cpu_time_total / 1e3:9.1f} ms {each.count:6} calls")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {
        "steps": 5,
        "draws": 180,
        "width": 288,
        "depth": 6,
        "repeats": 3,
        "threads": 2,
        "rows": 64,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--profile", action="store_true", help="where one step of ours in bf16 spends its time")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    names = tuple(str(k) for k in range(10))
    prior = native_prior(
        NativeConfig("dit", "eps", 32, 3, names),
        width=options.width,
        depth=options.depth,
        heads=options.width // 48,
        patch=4,
    )
    for parameter in prior.parameters():  # adaLN-Zero starts silent
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    predictor = Predictor(timm.create_model("resnet18", num_classes=10), names, size=224)
    image = torch.rand(1, 3, 224, 224)
    draws = [
        draw("uniform", options.draws, prior.encode(image), ["x"], seed=0, num_timesteps=1000, update=i)
        for i in range(options.steps)
    ]
    if options.profile:
        return profile(prior.bfloat16(), prior.encode(image), draws[0], options.rows)
    size = sum(p.numel() for p in prior.parameters()) / 1e6
    print(
        f"DiT {size:.1f} M parameters at 32 px, ResNet-18 at 224 px, {options.steps} steps x {options.draws} draws, ",
        end="",
    )
    print(f"{options.threads} CPU threads, median of {options.repeats}")
    baseline, reference = timed(published_loop, predictor, prior, image, draws, repeats=options.repeats)
    found = [("published schedule", baseline, reference)]
    for name, change in CHANGES.items():
        change(prior)
        ours = partial(cut_graph, rows=options.rows)
        try:
            ours(predictor, prior, image, draws[:1], [p.requires_grad_() for p in predictor.parameters()])  # compiles
        except DiffcernError as error:
            print(f"{name}: {error}")
            continue
        found.append((name, *timed(ours, predictor, prior, image, draws, repeats=options.repeats)))
    print(f"{'':28}{'seconds':>9}{'ratio':>8}{'cosine of the updates':>24}")
    for name, seconds, moved in found:
        cosine = torch.cosine_similarity(moved, reference, dim=0)
        print(f"{name:28}{seconds:9.2f}{baseline / seconds:8.2f}{cosine:24.6f}")


if __name__ == "__main__":
    main()
