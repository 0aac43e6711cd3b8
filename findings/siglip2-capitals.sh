#!/usr/bin/env bash
# SigLIP 2 checkpoints of fixed resolution name GemmaTokenizer and the model type "siglip": transformers then reads a
# tokenizer that keeps capitals, while the same files under the model type "siglip2" give one that lower-cases. The
# model was trained on lower case, so that "Cat" and "cat" get other features. Fails where that has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet transformers==5.24.0 tokenizers==0.23.3
"$place/venv/bin/python" - "$place" <<'PYTHON'
import json
import sys
from pathlib import Path

import tokenizers
import transformers
from tokenizers import Tokenizer, models, normalizers, processors

print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__)
special = ["<pad>", "<eos>", "<bos>", "<unk>"]
vocabulary = {token: index for index, token in enumerate([*special, *"abcdefghijklmnopqrstuvwxyzABC▁"])}
tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
tokenizer.normalizer = normalizers.Replace(" ", "▁")
tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
same = {}
for kind in ("siglip", "siglip2"):
    folder = Path(sys.argv[1]) / kind
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    names = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GemmaTokenizer", **names}))
    read = transformers.AutoTokenizer.from_pretrained(folder)
    upper, lower = read("Cab")["input_ids"], read("cab")["input_ids"]
    same[kind] = upper == lower
    print(f"model type {kind}: {type(read).__name__}, 'Cab' {upper}, 'cab' {lower}")
sys.exit(0 if same == {"siglip": False, "siglip2": True} else "this has changed")
PYTHON
