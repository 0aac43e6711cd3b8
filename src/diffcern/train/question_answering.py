"""Trains a small LLaVA (Liu et al. 2023, arXiv 2304.08485) to answer questions about images:

    - log p(answer, end | image, question)        mean over questions

Several questions about an image share one pass, as in `Branches`: they are answered apart, and the image is read once.
The vision tower may be a CLIP's, as there: it is not trained, and its last layer is left out, whose patches a loss over
whole images leaves untrained.
Images are not augmented: a mirrored one would belie its answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tokenizers import processors
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from diffcern.data import Questions
from diffcern.errors import UsageError
from diffcern.fingerprints import fingerprint
from diffcern.predictors.branches import Branches, log_likelihoods
from diffcern.predictors.clip import image_tower
from diffcern.predictors.image_processors import squeezing
from diffcern.predictors.question_answering import Answerer, save_answerer
from diffcern.rng import generator
from diffcern.train.asked import QuestionTable, read_asked
from diffcern.train.clip import vision_config
from diffcern.train.loop import Outcome, check_out, train
from diffcern.train.recipes import AnswererRecipe, Regime
from diffcern.watching import Report, unheard
from diffcern.words import MULTIPLE, word_tokenizer

IMAGE = "<image>"
ENDING = "answer"  # between question and answer
TEMPLATE = (  # "<image> what colour is the cube? answer"
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '" + IMAGE + " ' if part['type'] == 'image' else part['text'] }}{% endfor %} " + ENDING + "{% endfor %}"
)


def answer_loss(
    answerer: Answerer, table: QuestionTable, index: Tensor, drawn: Tensor, *, autocast: bool = False
) -> Tensor:
    """The mean over questions of an answer's negative log-likelihood, in nats.

    index: `[B]` images; drawn: `[B, Q]`, of each image some questions by number, -1 for none.
    """
    device = answerer.eye.mean.device
    tokens, wanted = table.tokens[drawn.clamp(min=0)], table.answers[drawn.clamp(min=0)] & (drawn >= 0)[..., None]
    (count, length), start = tokens.shape[1:], len(table.prefix)
    ids = torch.cat([table.prefix.expand(len(index), -1), tokens.flatten(1)], 1)
    positions = torch.cat([torch.arange(start), start + torch.arange(length).repeat(count)])
    owners = torch.cat([torch.zeros(start, dtype=torch.long), torch.arange(1, count + 1).repeat_interleave(length)])
    sequence = Branches(ids, positions[None], owners[None], torch.tensor([start])).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        found = log_likelihoods(answerer.model, sequence, answerer.eye.prepare(table.images[index].to(device) / 255))
    return -(found[:, start:] * wanted.flatten(1).to(device)).sum() / (drawn >= 0).sum()


def train_answerer(
    data: Questions,
    recipe: AnswererRecipe,
    regime: Regime,
    folder: Path,
    *,
    device: torch.device,
    autocast: bool = False,
    allow_pickle: bool = False,
    report: Report = unheard,
) -> tuple[Answerer, Outcome]:
    """Trains (or goes on training) a LLaVA in `folder` and saves its averaged weights, in transformers' format.

    allow_pickle: of the CLIP's weights. Raises UsageError for a recipe that cannot be built, DiffcernError for unusable
    data, a CLIP that cannot be had or a folder that holds other things.
    """
    seen = (0, 0) if recipe.vision else (recipe.image_size % recipe.patch, recipe.width % recipe.heads)
    if any((*seen, recipe.text_width % recipe.text_heads)):
        raise UsageError("the image size must be a multiple of the patch, each width a multiple of its heads")
    if recipe.questions < 1:
        raise UsageError(f"ask at least 1 question about an image, not {recipe.questions}")
    check_out(folder)
    torch.manual_seed(regime.seed)  # the initial weights
    answerer = new_answerer(recipe, data, allow_pickle=allow_pickle).to(device).train()
    tower = answerer.model.model.vision_tower.requires_grad_(not recipe.vision)
    table = read_asked(answerer, data, answerer.model.config.vision_config.image_size)

    def loss_at(step: int) -> Tensor:
        rng = generator(regime.seed, "answerer", step)
        index = torch.randint(len(table), (regime.batch_size,), generator=rng)
        return answer_loss(answerer, table, index, table.draw(index, recipe.questions, rng), autocast=autocast)

    settings = {"dataset": data.name, "size": len(table), "asked": table.digest, **asdict(recipe)}
    if recipe.vision:
        settings["tower"] = fingerprint(tower)
    outcome = train(answerer, loss_at, regime, folder, settings, report)
    save_answerer(answerer.eval().requires_grad_(False), folder)
    return answerer, outcome


def new_answerer(recipe: AnswererRecipe, data: Questions, *, allow_pickle: bool = False) -> Answerer:
    """Untrained but for its vision tower, where that is a CLIP's; for the words of the questions and all choices.

    Raises UsageError and DiffcernError as `image_tower`, and UsageError for one of a single layer.
    """
    if recipe.vision:
        tower, images = image_tower(recipe.vision, allow_pickle=allow_pickle)
        vision, mean, std = tower.config, images.image_mean, images.image_std
        vision.num_hidden_layers -= 1
        if not vision.num_hidden_layers:
            raise UsageError(f"{recipe.vision} has one layer, and the last is left out: give a deeper CLIP")
    else:
        vision = vision_config(recipe.image_size, recipe.patch, recipe.width, recipe.depth, recipe.heads)
        tower, mean, std = None, [0.5] * 3, [0.25] * 3
    patches = (vision.image_size // vision.patch_size) ** 2
    texts = {f"{entry.question} {ENDING} {word}" for entry in data.asked for word in (entry.answer, *entry.choices)}
    tokenizer = question_tokenizer(texts, patches)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.text_width,
        intermediate_size=MULTIPLE * (recipe.text_width // 3),  # 8/3 of the width, as Llama's
        num_hidden_layers=recipe.text_depth,
        num_attention_heads=recipe.text_heads,
        max_position_embeddings=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=patches,
        vision_feature_layer=-1,  # the last that is there
    )
    options: dict[str, Any] = {"vision_feature_select_strategy": config.vision_feature_select_strategy}
    options |= {"patch_size": vision.patch_size, "num_additional_image_tokens": 1, "chat_template": TEMPLATE}
    processor = LlavaProcessor(squeezing(vision.image_size, mean, std), tokenizer, image_token=IMAGE, **options)
    # plain products, as in `priors/captioned.py`
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation="eager")
    if tower is not None:
        weights, slots = tower.state_dict(), model.model.vision_tower.state_dict()
        model.model.vision_tower.load_state_dict({name: weights[name] for name in slots})  # without the last layer
    return Answerer(model, processor)


def question_tokenizer(texts: Iterable[str], image_tokens: int) -> PreTrainedTokenizerFast:
    """As `word_tokenizer`, with a token for the image; nothing is put behind a text, which is to be answered."""
    tokenizer = word_tokenizer(texts)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    first = [(tokenizer.bos_token, tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokenizer.bos_token} $A", special_tokens=first
    )
    tokenizer.model_max_length += image_tokens
    return tokenizer
