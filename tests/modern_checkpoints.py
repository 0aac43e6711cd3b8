"""Tiny checkpoints of families of transformers that read text, and of distilled ones: as of `hub_checkpoints`."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    AutoencoderDC,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
)
from hub_checkpoints import (
    CLASSES,
    autoencoder,
    loud,
    named,
    stable_diffusion_parts,
    text_encoder,
    third_text_encoder,
    tokenizer,
)
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)


def newer(name: str) -> Any:
    """A class of diffusers that the oldest version which diffcern runs with (0.36) may lack."""
    if not hasattr(diffusers, name):
        pytest.skip(f"this version of diffusers has no {name}")
    return getattr(diffusers, name)


def pixart(folder: Path, sigma: bool = False, side: int = 8) -> Path:
    """Alpha hears the size of the image, as published at 1024 pixels; the variance is learned. side: of the latents."""
    text = third_text_encoder()
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=24,
        caption_channels=32,
        sample_size=side,
        use_additional_conditions=not sigma,
    )
    (PixArtSigmaPipeline if sigma else PixArtAlphaPipeline)(
        tokenizer=text["tokenizer_3"],
        text_encoder=text["text_encoder_3"],
        vae=autoencoder(),
        transformer=loud(transformer),
        scheduler=DPMSolverMultistepScheduler(),
    ).save_pretrained(folder)
    return folder


def latent_consistency(folder: Path) -> Path:
    LatentConsistencyModelPipeline(
        **stable_diffusion_parts(folder, time_cond_proj_dim=8)
        | {"scheduler": LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")},
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def compressing_autoencoder(latent_channels: int = 4) -> nn.Module:
    """Sana's: no posterior."""
    return loud(
        AutoencoderDC(
            latent_channels=latent_channels,
            attention_head_dim=4,
            encoder_block_types=("ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            scaling_factor=0.41407,
        )
    )


def sana(folder: Path) -> Path:
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", "\n"]
    tokens = [*special, *string.ascii_letters, *string.digits, *string.punctuation]
    gemma = GemmaTokenizer({token: number for number, token in enumerate(tokens)}, add_bos_token=True)
    config = Gemma2Config(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=16,  # images of 32 pixels: diffusers' pipeline makes no smaller ones
        timestep_scale=0.7,  # 1 in most that are published, and 0.001 in some
    )
    SanaPipeline(
        tokenizer=gemma,
        text_encoder=loud(Gemma2Model(config)),
        vae=compressing_autoencoder(),
        transformer=loud(transformer),
        scheduler=DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    ).save_pretrained(folder)
    return folder


def flux(folder: Path, guided: bool = True) -> Path:
    """dev, which is told the guidance, or schnell."""
    text = third_text_encoder()
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        guidance_embeds=guided,
        axes_dims_rope=(2, 2, 4),
    )
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0 if guided else 1.0, use_dynamic_shifting=guided),
        vae=autoencoder(shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False, sample_size=16),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(folder / "tokenizer"),
        text_encoder_2=text["text_encoder_3"],
        tokenizer_2=text["tokenizer_3"],
        transformer=loud(transformer),
    ).save_pretrained(folder)
    return folder


CHAT = """{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def klein(folder: Path) -> Path:
    """FLUX.2 [klein], whose prompts are three of the hidden states of a Qwen3: 28 layers are as few as there can be."""
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "additional_special_tokens": ["<|im_start|>"]}
    letters = [*string.ascii_letters, *string.digits, *string.punctuation, "Ġ", "Ċ"]
    qwen = Qwen2Tokenizer({token: number for number, token in enumerate(letters)}, chat_template=CHAT, **ends)
    config = Qwen3Config(
        vocab_size=len(qwen),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        tie_word_embeddings=True,
    )
    vae = newer("AutoencoderKLFlux2")(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    )
    vae.bn.running_mean += 0.1
    vae.bn.running_var *= 2
    transformer = newer("Flux2Transformer2DModel")(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=24,
        timestep_guidance_channels=16,
        axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=False,
    )
    newer("Flux2KleinPipeline")(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=loud(vae),
        text_encoder=loud(Qwen3ForCausalLM(config)),
        tokenizer=qwen,
        transformer=loud(transformer),
    ).save_pretrained(folder)
    return folder


def representation_dit(folder: Path, encoder: str = "dinov2") -> Path:
    """A SiT in the features of an image encoder, 4 x 4 patches of 64 numbers: as few as diffusers' encoders have."""
    vae = newer("AutoencoderRAE")(
        encoder_type=encoder,
        encoder_hidden_size=64,
        encoder_patch_size=14,
        encoder_num_hidden_layers=1,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
        patch_size=4,
        encoder_input_size=56,
        latents_mean=torch.full((64, 4, 4), 0.2),
        latents_std=torch.full((64, 4, 4), 1.5),
        noise_tau=0.8,
        scaling_factor=0.9,
    )
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=64,
        out_channels=64,
        num_layers=2,
        sample_size=4,
        num_embeds_ada_norm=len(CLASSES),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=2.5)
    DiTPipeline(loud(transformer), loud(vae), scheduler).save_pretrained(folder)
    return named(folder, CLASSES)
