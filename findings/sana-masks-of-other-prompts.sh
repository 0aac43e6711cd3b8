#!/usr/bin/env bash
# SanaPipeline, asked for several images of several prompts, pairs the words of one prompt with the mask of another.
#
# encode_prompt repeats embeddings prompt by prompt (a, a, b, b) and attention masks batch by batch (a, b, a, b). Where prompts
# differ in length, some images of a short one then attend to padding, and some of a long one's do not see the end of their text.
# One prompt, or one image of each, is right, so that nobody meets it while trying out. The prompts written out, [a, a, b, b] with
# one image of each, give other latents from the same noise. diffusers 0.42.1.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "torch==2.14.1" "diffusers==0.42.1" "transformers==5.24.0"
python -W ignore - <<'PYTHON'
import string

import diffusers
import torch
import transformers
from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaPipeline, SanaTransformer2DModel

print("diffusers", diffusers.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
torch.manual_seed(0)
words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *string.ascii_lowercase]
size = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
text = transformers.Gemma2Model(transformers.Gemma2Config(vocab_size=len(words), num_hidden_layers=1, **size))
heads = {"num_attention_heads": 2, "num_cross_attention_heads": 2, "attention_head_dim": 8, "cross_attention_head_dim": 8}
channels = {"in_channels": 4, "out_channels": 4, "caption_channels": 16, "cross_attention_dim": 16}
network = SanaTransformer2DModel(num_layers=1, sample_size=16, **heads, **channels)
blocks = {f"{side}_block_types": "ResBlock" for side in ("encoder", "decoder")}
widths = {f"{side}_block_out_channels": (8, 8) for side in ("encoder", "decoder")}
layers = {f"{side}_layers_per_block": (1, 1) for side in ("encoder", "decoder")}
vae = AutoencoderDC(latent_channels=4, **blocks, **widths, **layers)
for module in (text, network):  # a new network's small weights would hide what it is told
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
tokenizer = transformers.GemmaTokenizer({word: number for number, word in enumerate(words)})
pipe = SanaPipeline(tokenizer, text.eval(), vae.eval(), network.eval(), FlowMatchEulerDiscreteScheduler())
pipe.set_progress_bar_config(disable=True)

prompts = ["ab", "abcdefghijkl"]
plain = {"do_classifier_free_guidance": False, "max_sequence_length": 20}
with torch.no_grad():
    each, masks, *_ = pipe.encode_prompt(prompts, **plain)
    found, found_masks, *_ = pipe.encode_prompt(prompts, num_images_per_prompt=2, **plain)
of_a, masks_of_a = ([torch.equal(row, given[0]) for row in rows] for given, rows in ((each, found), (masks, found_masks)))
order = ["".join("ba"[is_a] for is_a in rows) for rows in (of_a, masks_of_a)]
print("tokens of a and b:", masks.sum(1).tolist(), "for two images of each, embeddings:", order[0], "masks:", order[1])
assert order == ["aabb", "abab"], "the finding no longer holds"

latents = torch.randn(4, 4, 16, 16)
asked = {"height": 32, "width": 32, "num_inference_steps": 4, "use_resolution_binning": False, "complex_human_instruction": None}
asked |= {"max_sequence_length": 20, "latents": latents, "output_type": "latent"}
two = pipe(prompts, num_images_per_prompt=2, **asked).images
written = pipe([prompts[0]] * 2 + [prompts[1]] * 2, **asked).images
apart = [round(value, 3) for value in (two - written).abs().amax((1, 2, 3)).tolist()]
print("largest difference of latents to the prompts written out, image by image:", apart)
assert apart[0] < 1e-3 and apart[3] < 1e-3 and min(apart[1:3]) > 0.01, "the finding no longer holds"
print("still so")
PYTHON
