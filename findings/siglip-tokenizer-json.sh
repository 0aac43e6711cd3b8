#!/usr/bin/env bash
# SigLIP's published folders hold the same tokenizer twice, as spiece.model and as tokenizer.json. transformers reads the
# first alone: without sentencepiece it asks for it, and where only tokenizer.json is there it fails with sentencepiece
# too, while PreTrainedTokenizerFast reads that file. Fails where this has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet transformers==5.24.0 tokenizers==0.23.3
cat > "$place/read.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

folder = Path(sys.argv[1]) / "siglip"
folder.mkdir(exist_ok=True)
pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in "abcdefgh")]
tokenizer = Tokenizer(models.Unigram(pieces, 2))
tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "config.json").write_text(json.dumps({"model_type": "siglip"}))
special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
(folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer", **special}))
print("transformers", transformers.__version__)
print("PreTrainedTokenizerFast:", transformers.PreTrainedTokenizerFast.from_pretrained(folder)("a cab")["input_ids"])
try:
    transformers.AutoTokenizer.from_pretrained(folder)
    print("AutoTokenizer reads it")
    sys.exit("this has changed")
except Exception as error:
    print(f"AutoTokenizer: {type(error).__name__}: {' '.join(str(error).split())[:120]}")
    sys.exit(0 if type(error).__name__ == sys.argv[2] else f"this has changed: no {sys.argv[2]}")
PYTHON
echo "without sentencepiece"
"$place/venv/bin/python" "$place/read.py" "$place" ImportError
"$place/venv/bin/python" -m pip install --quiet sentencepiece==0.2.3 protobuf==7.36.2
echo "with sentencepiece"
"$place/venv/bin/python" "$place/read.py" "$place" ValueError
