"""Tiny, randomly initialised checkpoints in transformers' hub format, written to disk: nothing is mocked."""

from __future__ import annotations

import io
import json
import string
from pathlib import Path

import sentencepiece
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

from .conftest import loud

LABELS = {0: "cat", 1: "dog", 2: "crane", 3: "crane"}
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def save(folder: Path, model: nn.Module, *others: object) -> nn.Module:
    """Writes config.json and model.safetensors, and the processors' files."""
    for part in (loud(model), *others):
        part.save_pretrained(folder)
    return model.eval()


def classifier(folder: Path) -> nn.Module:
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**TOWER, id2label=LABELS))
    return save(folder, model, transformers.ViTImageProcessor(size={"height": 32, "width": 32}))


def segmenter(folder: Path) -> nn.Module:
    config = transformers.SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8, id2label=LABELS
    )
    processor = transformers.SegformerImageProcessor(size={"height": 64, "width": 96})
    return save(folder, transformers.SegformerForSemanticSegmentation(config), processor)


def depth(folder: Path) -> nn.Module:
    """Depth Anything, which keeps the ratio of its images."""
    backbone = transformers.Dinov2Config(
        **TOWER | {"image_size": 48, "patch_size": 16, "num_hidden_layers": 4},
        mlp_ratio=1,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=16,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    size = {"height": 48, "width": 48}
    processor = transformers.DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=16)
    return save(folder, transformers.DepthAnythingForDepthEstimation(config), processor)


def dpt(folder: Path) -> nn.Module:
    """Without the tensors that DPT never uses, as the published checkpoints are."""
    config = transformers.DPTConfig(
        **TOWER | {"num_hidden_layers": 4},
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
    )
    processor = transformers.DPTImageProcessor(size={"height": 32, "width": 32})
    model = save(folder, transformers.DPTForDepthEstimation(config), processor)
    rewrite(folder, drop="neck.fusion_stage.layers.0.residual_layer1")
    return model


def clip(folder: Path) -> nn.Module:
    """With CLIP's own tokenizer: bytes, a few merges, the two special tokens last."""
    merges = ["c a", "ca t</w>", "d o", "do g</w>", "p h", "o t"]
    letters = sorted({chr(byte) for byte in range(33, 127)} - set("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=24)
    end = len(tokens) - 1
    text = {"vocab_size": len(tokens), "max_position_embeddings": 24, "eos_token_id": end, "bos_token_id": end - 1}
    shape = {key: value for key, value in TOWER.items() if key not in ("image_size", "patch_size")}
    config = transformers.CLIPConfig(
        text_config={**shape, **text, "pad_token_id": end}, vision_config=TOWER, projection_dim=12
    )
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_convert_rgb=True
    )
    return save(folder, transformers.CLIPModel(config), processor, tokenizer)


def siglip(folder: Path) -> nn.Module:
    """With SigLIP's own tokenizer, as published: SentencePiece's file, and no other."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a photo of a cat", "a picture of a dog", "fish"] * 20),
        model_writer=stream,
        vocab_size=25,
        bos_id=-1,
        eos_id=1,
        unk_id=2,
        pad_id=0,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(stream.getvalue())
    settings = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 24, "do_lower_case": True}
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | special | {"model_input_names": ["input_ids"]}))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    return siglip_model(folder, 32, 24)


def siglip2(folder: Path) -> nn.Module:
    """SigLIP 2 of fixed resolution, as published: Gemma's tokenizer, which knows capitals, and no architectures."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *string.ascii_letters, *"▁.,'"]
    merges = [("c", "a"), ("ca", "t"), ("C", "a"), ("Ca", "t"), ("d", "o"), ("do", "g")]
    tokens += ["".join(merge) for merge in merges]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.add_special_tokens(special)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")}
    settings = {"tokenizer_class": "GemmaTokenizer", "padding_side": "right", "model_max_length": 10**30}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | names))
    model = siglip_model(folder, len(tokens), 24)
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    return model


def siglip_words(folder: Path) -> nn.Module:
    """With a tokenizer.json alone, of words."""
    words = ["</s>", "<unk>", "a", "photo", "of", "picture", "cat", "dog", "fish", "."]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>", model_max_length=12
    )
    wrapped.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "SiglipTokenizer"}))
    return siglip_model(folder, len(words), 12)


def siglip_model(folder: Path, words: int, length: int) -> nn.Module:
    shape = {key: value for key, value in TOWER.items() if key not in ("image_size", "patch_size")}
    text = {"vocab_size": words, "max_position_embeddings": length, "projection_size": 16}
    config = transformers.SiglipConfig(text_config={**shape, **text}, vision_config=TOWER)
    processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    return save(folder, transformers.SiglipModel(config), processor)


def rewrite(folder: Path, *, drop: str = "", **added: object) -> None:
    """Takes the tensors whose names start with `drop` out of a checkpoint, and puts others in."""
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in state.items() if not drop or not name.startswith(drop)}
    save_file({**kept, **added}, folder / "model.safetensors", metadata={"format": "pt"})
