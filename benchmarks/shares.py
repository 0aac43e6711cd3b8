"""Which share of an evaluation of SD-2.1 could be computed once for all prompts at one (t, eps)? Counted, not timed.

    python benchmarks/shares.py

Keys and values of the text are the same at every draw; what comes before the first cross-attention is the same for
every prompt. Floating-point operations of the U-Net at 64 x 64, 77 tokens, counted by torch on its meta device.
"""

from __future__ import annotations

import torch
from architectures import unet_of_sd
from torch.utils.flop_counter import FlopCounterMode

BEFORE = ("conv_in", "down_blocks.0.resnets.0", "down_blocks.0.attentions.0.proj_in")
FIRST_SELF_ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


def main() -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        unet = unet_of_sd()
        unet(torch.zeros(1, 4, 64, 64), torch.zeros(1), torch.zeros(1, 77, 1024))
    parts = {name.partition(".")[2]: sum(found.values()) for name, found in counter.get_flop_counts().items()}
    total = counter.get_total_flops()
    text = sum(count for name, count in parts.items() if name.endswith(("attn2.to_k", "attn2.to_v")))
    before = sum(parts[name] for name in (*BEFORE, FIRST_SELF_ATTENTION))
    print(f"an evaluation: {total / 1e9:.0f} GFLOP")
    print(f"keys and values of the text:        {100 * text / total:.1f} %")
    print(f"before the first cross-attention:   {100 * before / total:.1f} %")


if __name__ == "__main__":
    main()
