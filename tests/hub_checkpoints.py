"""Tiny, randomly initialised checkpoints in the exact hub format, written to disk: nothing is mocked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionDepth2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

CLASSES = ("tench", "goldfish", "great white shark")


def loud(model: nn.Module) -> nn.Module:
    """Random numbers everywhere, also where training starts at zero: a silent path would hide a mistake."""
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def autoencoder(latent_channels: int = 4, **options) -> nn.Module:
    return loud(
        AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=latent_channels,
            norm_num_groups=4,
            **options,
        )
    )


def tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer with letters for a vocabulary and no merges."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [*"abcdefghijklmnopqrstuvwxyz,.'0123456789"]
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


def text_encoder(width: int = 16, projection: bool = False) -> nn.Module:
    config = CLIPTextConfig(
        vocab_size=80,
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=78,
        eos_token_id=79,
        pad_token_id=79,
    )
    return loud(CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config))


def dit(folder: Path, flow: bool = False, classes: Sequence[str] = CLASSES) -> Path:
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4 if flow else 8,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=len(classes),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0) if flow else DDIMScheduler()
    DiTPipeline(loud(transformer), autoencoder(), scheduler).save_pretrained(folder)
    return named(folder, classes)


def named(folder: Path, classes: Sequence[str]) -> Path:
    """Writes what the classes are called into a repository's model_index.json."""
    index = json.loads((folder / "model_index.json").read_text())
    index["id2label"] = dict(enumerate(classes))  # as in the published repositories
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def conditional_unet(**options) -> nn.Module:
    return loud(
        UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=2,
            norm_num_groups=4,
            **options,
        )
    )


def stable_diffusion_parts(folder: Path, prediction_type: str = "epsilon", **options) -> dict:
    return {
        "vae": autoencoder(),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(folder / "tokenizer"),
        "unet": conditional_unet(cross_attention_dim=16, **options),
        "scheduler": PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            prediction_type=prediction_type,
        ),
    }


def stable_diffusion(folder: Path, prediction_type: str = "epsilon") -> Path:
    StableDiffusionPipeline(
        **stable_diffusion_parts(folder, prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def stable_diffusion_depth(folder: Path) -> Path:
    """The U-Net's fifth channel is a depth map."""
    depth = DPTConfig(
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        image_size=32,
        neck_hidden_sizes=[4, 4, 4, 4],
        fusion_hidden_size=4,
    )
    StableDiffusionDepth2ImgPipeline(
        **stable_diffusion_parts(folder, in_channels=5),
        depth_estimator=DPTForDepthEstimation(depth),
        feature_extractor=DPTImageProcessor(),
    ).save_pretrained(folder)
    return folder


def controlnet(folder: Path, unet: nn.Module) -> Path:
    loud(ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8))).save_pretrained(folder)
    return folder


def controlled(folder: Path, xl: bool = False) -> str:
    """A Stable Diffusion pipeline and a ControlNet, as `load_prior` takes them."""
    base = sdxl(folder / "base") if xl else stable_diffusion(folder / "base")
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet")
    return f"{base}+controlnet:{controlnet(folder / 'control', unet)}"


def sdxl(folder: Path) -> Path:
    StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(),
        text_encoder_2=text_encoder(projection=True),
        tokenizer=tokenizer(folder / "tokenizer"),
        tokenizer_2=tokenizer(folder / "tokenizer_2"),
        unet=conditional_unet(
            cross_attention_dim=32,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=16 + 6 * 8,
        ),
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        force_zeros_for_empty_prompt=True,
    ).save_pretrained(folder)
    return folder


def third_text_encoder() -> dict:
    """The third text encoder of Stable Diffusion 3, with a tokenizer of letters."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    tokens = [*special, *((letter, -3.0) for letter in ascii_lowercase)]
    tokenizer = T5Tokenizer(vocab=tokens, extra_ids=0)
    config = T5Config(vocab_size=len(tokens), d_model=32, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    return {"text_encoder_3": loud(T5EncoderModel(config)), "tokenizer_3": tokenizer}


def sd3(folder: Path, t5: bool = False) -> Path:
    third = third_text_encoder() if t5 else {"text_encoder_3": None, "tokenizer_3": None}
    StableDiffusion3Pipeline(
        transformer=loud(
            SD3Transformer2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=32,
                caption_projection_dim=16,
                pooled_projection_dim=32,
                pos_embed_max_size=8,
            )
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=text_encoder(projection=True),
        tokenizer=tokenizer(folder / "tokenizer"),
        text_encoder_2=text_encoder(projection=True),
        tokenizer_2=tokenizer(folder / "tokenizer_2"),
        **third,
    ).save_pretrained(folder)
    return folder


def ddpm(folder: Path, classes: int | None = None) -> Path:
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=8,
        num_class_embeds=classes,
    )
    DDPMPipeline(loud(unet), DDPMScheduler()).save_pretrained(folder)
    return folder
