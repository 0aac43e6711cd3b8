#!/usr/bin/env bash
# diffusers' DiT holds one embedder of time and class per block, where the published network has one in all.
#
# Converted checkpoints fill the copies with the same numbers, so that outputs agree, and nobody notices: until somebody
# trains. Every copy then gets a share of the gradient and goes its own way (the published step is the sum of the shares),
# and the network has millions of parameters more: for XL/2 (width 1152, 28 blocks, 1,001 labels) 27 x 2.8 M.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv" && source "$place/venv/bin/activate"
pip install --quiet "torch==2.13.0" "diffusers==0.35.2" "transformers==4.57.1" "numpy<3"
python - <<'PYTHON'
import diffusers, torch
from diffusers import DiTTransformer2DModel

print("diffusers", diffusers.__version__, "torch", torch.__version__)
torch.manual_seed(0)
blocks = 3
model = DiTTransformer2DModel(
    num_attention_heads=2, attention_head_dim=8, in_channels=4, num_layers=blocks, sample_size=8, num_embeds_ada_norm=5
).eval()
embedders = [block.norm1.emb for block in model.transformer_blocks]
for embedder in embedders[1:]:  # as a converted checkpoint has it
    embedder.load_state_dict(embedders[0].state_dict())
for parameter in model.parameters():  # zeros of an untrained network would hide the effect
    if parameter.ndim > 1:
        torch.nn.init.normal_(parameter, std=0.1)
for embedder in embedders[1:]:
    embedder.load_state_dict(embedders[0].state_dict())
tables = [embedder.class_embedder.embedding_table.weight for embedder in embedders]
assert len({table.data_ptr() for table in tables}) == blocks, "they share memory now: the finding no longer holds"
optimizer = torch.optim.SGD(model.parameters(), 0.1)
x = torch.randn(4, 4, 8, 8)
model(x, timestep=torch.tensor([1, 200, 500, 900]), class_labels=torch.tensor([0, 1, 2, 3])).sample.square().mean().backward()
optimizer.step()
apart = (tables[0] - tables[1]).abs().max().item()
print(f"{blocks} label tables, equal before one step of SGD, {apart:.1e} apart after it")
assert apart > 0, "the copies stay equal: the finding no longer holds"
print("still so")
PYTHON
