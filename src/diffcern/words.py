"""Captions as words: a tokenizer made of the captions' own words, and prompts that are checked before they are read.

What our own text encoders (`priors/captioned.py`, `train/clip.py`) share. Knows nothing about images.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from diffcern.errors import DiffcernError, UsageError

if TYPE_CHECKING:
    from transformers import CLIPTextConfig, PreTrainedTokenizerFast

# In this order: transformers' CLIP pools where <eos> is, except where that has number 2, which old checkpoints wrongly
# say; then it pools at the highest number.
SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>"}
LISTED = 40  # words that an error lists
MULTIPLE = 8  # lengths are rounded up to it


def word_tokenizer(captions: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token for every word (in lower case) and punctuation mark of the captions, <bos> before and <eos> behind.

    It reads as many tokens as the longest caption has, rounded up to a multiple of 8.
    """
    split, lower = pre_tokenizers.Whitespace(), normalizers.Lowercase()
    words = [[word for word, _ in split.pre_tokenize_str(lower.normalize_str(caption))] for caption in captions]
    known = [*SPECIAL.values(), *sorted({word for caption in words for word in caption})]
    numbers = {word: number for number, word in enumerate(known)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = lower, split
    ends = [(SPECIAL[name], numbers[SPECIAL[name]]) for name in ("bos_token", "eos_token")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    longest = max((len(caption) for caption in words), default=0) + len(ends)
    length = -(-longest // MULTIPLE) * MULTIPLE
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **SPECIAL)


def token_ids(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    """Token numbers `[B, L]`, every text padded to the length L that the tokenizer reads, whatever its company.

    Raises UsageError for a text that is longer or has an unknown word.
    """
    limit, unknown = tokenizer.model_max_length, tokenizer.unk_token_id
    ids = torch.full((len(texts), limit), tokenizer.pad_token_id)
    for row, (text, numbers) in enumerate(zip(texts, tokenizer(list(texts), verbose=False)["input_ids"], strict=True)):
        if len(numbers) > limit or unknown in numbers:
            check_length(tokenizer, text)
            check_words(tokenizer, text)
        ids[row, : len(numbers)] = torch.tensor(numbers)
    return ids


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, words: int, length: int) -> None:
    """Raises DiffcernError unless a tokenizer, as `word_tokenizer` made it, numbers that many words and puts the ends
    around at most that many of them: one that lacks either reads other captions than its encoder was trained on."""
    limit, numbers = tokenizer.model_max_length, sorted(tokenizer.get_vocab().values())
    if numbers != list(range(words)) or not isinstance(limit, int) or not 2 <= limit <= length:
        raise DiffcernError(
            f"the tokenizer knows {len(numbers)} words and reads {limit}, and its encoder {words} and {length}: the "
            "two do not belong together, or one was changed"
        )
    special = {name: getattr(tokenizer, name) for name in SPECIAL}
    word = next((word for word in sorted(tokenizer.get_vocab()) if word not in SPECIAL.values()), "")
    read = [tokenizer.bos_token_id, *([tokenizer.get_vocab()[word]] if word else []), tokenizer.eos_token_id]
    if special != SPECIAL or tokenizer(word)["input_ids"] != read:
        raise DiffcernError(
            f"the tokenizer's own words are {special}, not {SPECIAL}, or it leaves out words or ends: "
            "restore the folder"
        )


def text_config(tokenizer: PreTrainedTokenizerFast, width: int, depth: int, heads: int) -> CLIPTextConfig:
    """Of CLIP's text encoder, for this tokenizer's words."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def check_length(tokenizer: Any, prompt: str, limit: int | None = None) -> None:
    """Raises UsageError that says what of the prompt a tokenizer of transformers would cut off.

    limit: how many tokens its model reads, None for as many as the tokenizer says.
    """
    limit = tokenizer.model_max_length if limit is None else min(limit, tokenizer.model_max_length)
    ids = tokenizer(prompt, verbose=False)["input_ids"]
    if len(ids) > limit:
        end = 1 if ids[-1] in tokenizer.all_special_ids else 0  # the last token of what is kept is the end's
        cut = tokenizer.decode(ids[limit - end : len(ids) - end])
        raise UsageError(
            f"the prompt {prompt!r} is longer than the {limit} tokens that the model reads: shorten it, lest "
            f"{cut.strip()!r} be cut off"
        )


def check_words(tokenizer: Any, prompt: str) -> None:
    """Raises UsageError that names the words which a tokenizer of whole words does not know, and the nearest known.

    Tokenizers of pieces of words know every word; nothing is checked.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.model, models.WordLevel):
        return
    encoded = tokenizer(prompt, return_offsets_mapping=True, verbose=False)
    spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    missing = [prompt[start:end] for number, (start, end) in spans if number == tokenizer.unk_token_id]
    if missing:
        known = sorted(tokenizer.get_vocab().keys() - set(SPECIAL.values()))
        near = [difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.0) for word in missing]
        hints = [f"{word!r} (nearest: {', '.join(words)})" for word, words in zip(missing, near, strict=True)]
        raise UsageError(
            f"the prompt {prompt!r} has words that the model does not know: {'; '.join(hints)}. It knows the "
            f"{len(known)} words of the captions that it was trained on: say it with these"
            + (f" ({', '.join(known)})" if len(known) <= LISTED else "")
        )
