"""Tiny models, images and predictors of four classes: made in milliseconds, with random numbers everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffcern.data import encode_png
from diffcern.predictors import load_predictor
from diffcern.predictors.adapted import save_adapted
from diffcern.predictors.mae import MaeConfig, mae_predictor, save_mae
from diffcern.predictors.native import NativePredictorConfig, native_predictor, save_predictor
from diffcern.priors.captioned import CaptionedConfig, captioned_prior
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.priors.spatial import Maps
from diffcern.words import word_tokenizer

NAMES, HALF = ("cat", "dog", "cow", "hen"), (0.5,) * 3
CAPTIONS = tuple(f"a photo of a {name}." for name in NAMES)
SIZES = {"width": 16, "depth": 1, "heads": 2, "patch": 4}


def images(count: int = 2, side: int = 8) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def pictures(folder: Path, count: int = 2) -> Path:
    """A folder of images as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images(count)):
        (folder / f"{number}.png").write_bytes(encode_png(image))
    return folder


def loud(network: nn.Module) -> nn.Module:
    """Random numbers also where training starts at zero."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        parameter.data.normal_(std=0.2)
    return network


def prior(folder: Path, architecture: str = "dit", maps: Maps | None = None, grey: bool = False) -> Path:
    config = NativeConfig(architecture, "x0", 8, 1 if grey else 3, () if maps else NAMES, maps)
    made = native_prior(config, **SIZES)
    loud(made)
    made.clean_errors = torch.linspace(0.1, 0.2, 101)
    made.save_pretrained(folder, torch.float32)
    return folder


def captioned(folder: Path) -> Path:
    text = {"text_width": 16, "text_depth": 1, "text_heads": 2}
    made = captioned_prior(CaptionedConfig("x0", 8, 3), word_tokenizer(CAPTIONS), **SIZES, **text)
    loud(made.denoiser)
    loud(made.encoder.network)
    made.save_pretrained(folder, torch.float32)
    return folder


def predictor(folder: Path, architecture: str = "small-resnet", task: Any = "classification") -> Path:
    torch.manual_seed(0)
    names = () if task == "depth" else NAMES
    config = NativePredictorConfig(architecture, 8, names, HALF, HALF, width=4, depth=1, task=task)
    save_predictor(native_predictor(config), config, folder)
    return folder


def mae(folder: Path) -> Path:
    torch.manual_seed(0)
    config = MaeConfig(8, NAMES, HALF, HALF, width=16, depth=1, heads=2, patch=4, decoder_depth=1)
    save_mae(mae_predictor(config), config, folder)
    return folder


def adapted(folder: Path) -> Path:
    save_adapted(load_predictor(str(predictor(folder / "base"))), str(folder / "base"), folder)
    return folder


def vit(folder: Path) -> Path:
    """In transformers' format."""
    import transformers

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(**shape, image_size=8, patch_size=4, id2label=dict(enumerate(NAMES)))
    loud(transformers.ViTForImageClassification(config)).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    """In transformers' format, with our tokenizer of words."""
    import transformers

    from diffcern.predictors.image_processors import squeezing

    torch.manual_seed(0)
    tokenizer = word_tokenizer(CAPTIONS)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {f"{end}_token_id": getattr(tokenizer, f"{end}_token_id") for end in ("pad", "bos", "eos")}
    text = {**shape, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length}
    vision = {**shape, "image_size": 8, "patch_size": 4}
    loud(
        transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    ).save_pretrained(folder)
    squeezing(8, HALF, HALF).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def hub_dit(folder: Path) -> Path:
    """A pipeline in diffusers' format."""
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(0)
    blocks = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 4, "sample_size": 16}
    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    autoencoder = AutoencoderKL(**blocks, down_block_types=down, up_block_types=up)
    shape = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": 8, "patch_size": 2}
    transformer = DiTTransformer2DModel(**shape, in_channels=4, out_channels=8, num_embeds_ada_norm=len(NAMES))
    parts = loud(transformer), loud(autoencoder), DDIMScheduler()
    DiTPipeline(*parts, id2label=dict(enumerate(NAMES))).save_pretrained(folder)
    return folder
