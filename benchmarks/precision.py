"""Does half precision change the answers? Diffusion Classifier with the prior in each dtype, on the same draws.

    python benchmarks/precision.py [--prior weights/cifar10-prior] [--dataset parquet:PATH] [--count 200]

Schedule, noise and reductions are fp32 in all of them; only the network runs in the dtype.
"""

from __future__ import annotations

import argparse

import torch

from diffcern.data import load_dataset, subset
from diffcern.devices import device_named
from diffcern.draws import draw
from diffcern.likelihood import score
from diffcern.metrics import wilson
from diffcern.priors import load_prior


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="weights/cifar10-prior")
    parser.add_argument("--dataset", default="parquet:../shared/data/cifar10/test.parquet")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = device_named(options.device)
    data = subset(load_dataset(options.dataset), options.count, seed=0)
    samples = [data[i] for i in range(len(data))]
    targets = torch.tensor([sample.target for sample in samples], device=device)
    dtypes = [torch.float32, torch.bfloat16, *([torch.float16] if device.type == "cuda" else [])]
    means = {}
    for dtype in dtypes:
        prior = load_prior(options.prior, dtype).to(device)
        rows = []
        for sample in samples:
            latent = prior.encode(sample.image[None].to(device))
            draws = draw("stratified", options.draws, latent, [sample.id], seed=0, num_timesteps=prior.num_timesteps)
            rows.append(score(prior, latent, prior.hypotheses(), draws, weighting="x0").mean)
        means[dtype] = torch.cat(rows)
    print(f"{options.prior}, {len(data)} images of {options.dataset}, {options.draws} draws, 95 % Wilson intervals")
    print(f"{'dtype':16}{'accuracy':>10}{'same class as float32':>24}  interval        relative error")
    reference = means[torch.float32]
    for dtype, mean in means.items():
        same = int((mean.argmin(1) == reference.argmin(1)).sum())
        low, high = wilson(same, len(data))
        accuracy = (mean.argmin(1) == targets).float().mean().item()
        error = ((mean - reference).abs() / reference).max().item()
        print(
            f"{str(dtype)[6:]:16}{100 * accuracy:9.1f} %{100 * same / len(data):22.1f} %"
            f"  [{100 * low:.1f}, {100 * high:.1f}]{error:16.1e}"
        )


if __name__ == "__main__":
    main()
