#!/usr/bin/env bash
# DiTPipeline of diffusers guides away from class 1,000, however many classes the network has.
#
# A DiTTransformer2DModel has one label more than num_embeds_ada_norm says, the last, for "no class"; in training it drops labels
# to that one by itself. DiTPipeline, which guides by default (4.0), has the number 1000 written in, ImageNet's. A network of
# 2,000 classes is guided away from an ordinary class, without a word; one of ten ends with an IndexError about an embedding,
# which guidance_scale=1 avoids. diffusers 0.42.1.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "torch==2.14.1" "diffusers==0.42.1" "transformers==5.24.0"
python -W ignore - <<'PYTHON'
import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

print("diffusers", diffusers.__version__, "torch", torch.__version__)
told = {}
for classes in (1000, 2000, 10):
    torch.manual_seed(0)
    network = DiTTransformer2DModel(2, 8, 4, 8, num_layers=1, sample_size=8, num_embeds_ada_norm=classes)
    labels = network.transformer_blocks[0].norm1.emb.class_embedder
    heard = []
    labels.embedding_table.register_forward_hook(lambda module, given, answer: heard.append(given[0].tolist()))
    labels.train()(torch.zeros(1000, dtype=torch.long))  # a tenth of them dropped
    dropped = {*heard.pop()} - {0}
    pipe = DiTPipeline(network.eval(), AutoencoderKL(block_out_channels=(8,), norm_num_groups=4), DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    try:
        pipe([3], num_inference_steps=1, generator=torch.manual_seed(0))
        told[classes] = heard[-1]
    except IndexError as error:
        told[classes] = f"IndexError: {error}"
    print(f"{classes} classes: dropped labels become {dropped}; DiTPipeline, asked for class 3, gives {told[classes]}")
    assert dropped == {classes}, "the finding no longer holds"
assert told[1000] == told[2000] == [3, 1000] and "out of range" in told[10], "the finding no longer holds"
print("still so")
PYTHON
