"""CLIP and SigLIP as classifiers for labels of your own: the text becomes weights, the image tower the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffcern.errors import DiffcernError, UsageError
from diffcern.files import reading
from diffcern.labels import Vocabulary
from diffcern.predictors.hub import folder_of, stored
from diffcern.quiet import quiet_reading
from diffcern.weights import check_described, check_loaded, check_network
from diffcern.words import check_words

OPEN_VOCABULARY = ("clip", "siglip")  # transformers' model types


@dataclass(frozen=True)
class Texts:
    """What the weights of a `ZeroShot` were made of: its labels, and how its text tower, which is not kept, is read
    again: a CLIPModel and its tokenizer."""

    labels: tuple[str, ...]
    read: Callable[[], tuple[Any, Any]]


class ZeroShot(nn.Module):
    """logits = scale <image feature, text feature of each label> + bias, features of length 1 (Radford et al. 2021,
    arXiv 2103.00020, figure 3; with a bias: Zhai et al. 2023, arXiv 2303.15343).

    The text features `[K, D]`, scale and bias are buffers, so the parameters are the image tower's alone. SigLIP was
    trained with a sigmoid for each pair; its logits serve a softmax over the labels, where the bias cancels.
    texts: what the features are of, where a CLIP can be asked for others.
    """

    text: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(
        self,
        tower: nn.Module,
        projection: nn.Module,
        text: Tensor,
        scale: Tensor,
        bias: Tensor,
        texts: Texts | None = None,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.projection = projection
        self.texts = texts
        self.register_buffer("text", text, persistent=False)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def features(self, images: Tensor) -> Tensor:
        """Prepared images -> features of length 1, `[B, D]`."""
        return F.normalize(self.projection(self.tower(images).pooler_output), dim=-1)

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * self.features(images) @ self.text.T + self.bias


def zero_shot(
    model: Any, tokenizer: Any, vocabulary: Vocabulary, read: Callable[[], tuple[Any, Any]] | None = None
) -> ZeroShot:
    """A classifier from transformers' CLIPModel or SiglipModel; its text tower is not kept. read: see `Texts`.

    Raises UsageError for a prompt that is longer than the model reads or has a word that it cannot know.
    """
    siglip = model.config.model_type == "siglip"
    text = text_features(model.eval(), tokenizer, vocabulary)
    bias = model.logit_bias.detach().clone() if siglip else torch.zeros(1)
    projection = nn.Identity() if siglip else model.visual_projection
    texts = None if siglip or read is None else Texts(vocabulary.labels, read)
    return ZeroShot(model.vision_model, projection, text, model.logit_scale.detach().exp(), bias, texts)


def text_tokenizer(folder: Path, model_type: str, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a CLIP or SigLIP in a folder.

    transformers reads SigLIP's from SentencePiece's file alone; where there is only a tokenizer.json, that is read.
    """
    import transformers  # slow to import, and only needed here

    if model_type == "siglip" and (folder / "tokenizer.json").is_file() and not any(folder.glob("*.model")):
        return transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


def image_tower(name: str, *, allow_pickle: bool = False) -> tuple[Any, Any]:
    """The CLIPVisionModel of a CLIP, in fp32, and the processor that prepares its images.

    name: "embedded:NAME", "hf:OWNER/NAME[@REVISION]" or a folder. Raises UsageError for one that holds no model,
    DiffcernError for a model that cannot be had or read, lacks weights or is no CLIP.
    """
    import transformers  # slow to import, and only needed here

    folder = folder_of(name, allow_pickle=allow_pickle)
    if not (folder / "config.json").is_file():
        raise UsageError(f"{name} is no CLIP: give embedded:NAME, hf:OWNER/NAME or a folder of `diffcern train clip`")
    advice = "A CLIP in transformers' format has config.json, model.safetensors and a processor"
    with reading(Path(name), advice), quiet_reading():  # else it lists the weights of the text tower, which stay out
        config = transformers.AutoConfig.from_pretrained(folder)
        if config.model_type != "clip":
            raise DiffcernError(f"{name} is a {config.model_type}, not a CLIP: give a CLIP or SigLIP")
        weights = stored(folder, name, allow_pickle)
        files = weights.files(folder, "transformers")
        check_described(folder / "config.json", partial(transformers.CLIPModel, config), files)
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        model, info = transformers.CLIPVisionModel.from_pretrained(folder, **weights.reading)
        check_loaded(f"of {name}", {**info, "unexpected_keys": ()})  # the text tower's
        check_network(f"of {name}", model, files)
    return model.float(), processor


@torch.no_grad()
def text_features(model: Any, tokenizer: Any, vocabulary: Vocabulary, rows: int = 256) -> Tensor:
    """One feature of length 1 per label, `[K, D]`: the mean over its sentences' features of length 1.

    SigLIP was trained on text padded to full length and without a mask, CLIP with one; both on lower case, which
    SigLIP 2's tokenizer (Gemma's) leaves to whoever calls it. Raises UsageError for a prompt that the tokenizer would
    cut off, or of which it does not know a word.
    """
    siglip = model.config.model_type == "siglip"
    limit = model.config.text_config.max_position_embeddings
    prompts = [prompt.lower() for prompt in vocabulary.prompts] if siglip else vocabulary.prompts
    for prompt, ids in zip(prompts, tokenizer(prompts)["input_ids"], strict=True):
        if len(ids) > limit:
            raise UsageError(f"the prompt {prompt!r} has {len(ids)} tokens and the model reads {limit}: shorten it")
        check_words(tokenizer, prompt)
    features, counts = [], [len(own) for own in vocabulary.sentences]
    for start in range(0, len(prompts), rows):
        padding = {"padding": "max_length", "max_length": limit} if siglip else {"padding": True}
        tokens = tokenizer(prompts[start : start + rows], return_tensors="pt", **padding)
        mask = {} if siglip else {"attention_mask": tokens["attention_mask"]}
        pooled = model.text_model(tokens["input_ids"], **mask).pooler_output
        features.append(F.normalize(pooled if siglip else model.text_projection(pooled), dim=-1))
    return F.normalize(torch.stack([own.mean(0) for own in torch.cat(features).split(counts)]), dim=-1)
