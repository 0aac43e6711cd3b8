"""Models that answer questions about images, in transformers' LLaVA format (Liu et al. 2023, arXiv 2304.08485):

    score(c) = sum_k log p(c_k | image, question, c_<k)        p(c) = softmax over the choices of score(c)

All choices of a question share one sequence, see `Branches`: image and question are read once, however many there are.
A folder is laid out as transformers lays it out; `diffcern train answerer` writes such a folder.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffcern.errors import DiffcernError, UsageError
from diffcern.files import reading
from diffcern.predictors.base import Predictor
from diffcern.predictors.branches import branched, log_likelihoods
from diffcern.predictors.hub import folder_of, stored
from diffcern.predictors.image_processors import check_preprocessing, preprocessing
from diffcern.quiet import quiet_reading
from diffcern.resizing import Images
from diffcern.watching import doing
from diffcern.weights import check_described, check_loaded, check_network
from diffcern.words import check_words

SLOT = "{question}"  # stands for the question while the chat template is read


class Answerer(nn.Module):
    """A LLaVA with its processor: images, questions and choices in, log-probabilities of the choices out.

    name: what messages call it. Raises DiffcernError for a processor that does not say how a question is put or how
    many tokens an image takes, and for one that prepares images in a way that `Predictor` cannot.
    """

    class_names: tuple[str, ...] = ()  # every question brings its own choices

    def __init__(self, model: Any, processor: Any, name: str = "the model") -> None:
        super().__init__()
        self.model, self.processor, self.tokenizer = model.eval(), processor, processor.tokenizer
        self.eye = Predictor(nn.Identity(), (), **preprocessing(processor.image_processor, name))
        check_preprocessing(self.eye, processor.image_processor, name)
        self.template = chat_template(processor, name)
        self.image_tokens = image_tokens(processor, model, name)
        self.limit = min(self.tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
        vocabulary = self.tokenizer.get_vocab()
        self.words = tuple(sorted(vocabulary, key=vocabulary.__getitem__))  # a fingerprint looks at them

    def forward(self, images: Images, questions: Sequence[str], choices: Sequence[Sequence[str]]) -> Tensor:
        """Images in [0, 1], B questions, the choices of each -> log-probabilities `[B, C]`, fp32.

        C: the most choices that a question has; -inf behind those of one with fewer. A choice's score is the sum over
        its tokens, or the mean where the choices of a question differ in how many they have. Differentiable in the
        images. Raises UsageError as `read`, and for other than one question and one list of choices for each image.
        """
        if not len(images) == len(questions) == len(choices):
            raise UsageError(
                f"one question and one list of choices for each image: {len(images)} images, {len(questions)} "
                f"questions, {len(choices)} lists"
            )
        prompts, answers = zip(*map(self.read, questions, choices), strict=True)
        pixels = self.eye.prepare(images).to(self.model.dtype)
        sequence = branched(prompts, answers, self.tokenizer.pad_token_id or 0).to(pixels.device)
        return choice_log_probabilities(log_likelihoods(self.model, sequence, pixels), sequence.owners)

    def read(self, question: str, choices: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """The tokens of the prompt, image and all, and of each choice behind it.

        Raises UsageError for an empty question or choice, no choices or one given twice, words that the model cannot
        know, and for a question or choices that are too long.
        """
        if not question.strip():
            raise UsageError("the question is empty: ask something")
        if not choices:
            raise UsageError(
                f"the question {question!r} has no choices: answers are weighed against each other, so give two or more"
            )
        if len(set(choices)) < len(choices) or not all(choice.strip() for choice in choices):
            raise UsageError(f"the choices of {question!r} are different texts, not {', '.join(map(repr, choices))}")
        for text in (question, *choices):
            if self.processor.image_token in text:
                raise UsageError(
                    f"{text!r} holds {self.processor.image_token}, which stands for the image: leave it out"
                )
            check_words(self.tokenizer, text)
        prompt = self.template.replace(SLOT, question)
        ids = self.tokens(prompt)
        answers = [self.tokens(self.answered(prompt, choice))[len(ids) :] for choice in choices]
        over = len(ids) + max(map(len, answers)) - self.limit
        if over > 0:
            own = self.tokenizer(question, add_special_tokens=False, verbose=False)["input_ids"]
            cut = self.tokenizer.decode(own[max(0, len(own) - over) :]).strip()
            raise UsageError(
                f"the question {question!r} has {len(own)} tokens, and beside the image and the answer the model reads "
                f"{max(0, len(own) - over)}: shorten it, lest {cut!r} be cut off"
            )
        return ids, answers

    def answered(self, prompt: str, answer: str) -> str:
        """The prompt and what follows it."""
        return prompt + answer if prompt[-1].isspace() else f"{prompt} {answer}"

    def tokens(self, text: str) -> list[int]:
        """Of a text with one image, which is repeated for each of its features."""
        image = self.processor.image_token_id
        ids = self.tokenizer(text, verbose=False)["input_ids"]
        return [token for id in ids for token in ([image] * self.image_tokens if id == image else [id])]


def choice_log_probabilities(found: Tensor, owners: Tensor) -> Tensor:
    """`[B, C]` from the log-likelihoods of tokens `[B, T]` and the branches that own them, as `Answerer.forward`."""
    branches = torch.arange(1, int(owners.max()) + 1, device=owners.device)
    own = owners[:, None, :] == branches[:, None]
    lengths = own.sum(-1)
    scores = (found[:, None, :] * own).sum(-1)
    known = lengths > 0
    even = (lengths == lengths[:, :1]).logical_or(~known).all(1, keepdim=True)
    scores = torch.where(even, scores, scores / lengths.clamp(min=1))
    return scores.masked_fill(~known, -torch.inf).log_softmax(1)


def chat_template(processor: Any, name: str) -> str:
    """The prompt of one question, with `SLOT` in its place, as the processor's chat template puts it."""
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": SLOT}]}]
    with reading(Path(name), "Its processor must have a chat template that takes an image and a text"):
        template: str = processor.apply_chat_template(asked, add_generation_prompt=True)
        if template.count(SLOT) != 1 or template.count(processor.image_token) != 1:
            raise ValueError(f"its chat template makes {template!r} of an image and a question")
    bos = processor.tokenizer.bos_token or ""
    once = bos and processor.tokenizer("")["input_ids"][:1] == [processor.tokenizer.bos_token_id]
    return template.removeprefix(bos) if once else template  # the tokenizer puts it there itself


def image_tokens(processor: Any, model: Any, name: str) -> int:
    """How many tokens stand for an image, as LlavaProcessor counts them."""
    patch, strategy = processor.patch_size, processor.vision_feature_select_strategy
    if patch is None or strategy != model.config.vision_feature_select_strategy:
        raise DiffcernError(
            f"the processor_config.json of {name} must give patch_size and the model's vision_feature_select_strategy "
            f"({model.config.vision_feature_select_strategy!r}), not {patch} and {strategy!r}: newer versions of the "
            "repository do"
        )
    side = model.config.vision_config.image_size // patch
    count: int = side**2 + processor.num_additional_image_tokens - (strategy == "default")
    return count


def load_answerer(name: str, *, allow_pickle: bool = False) -> Answerer:
    """The LLaVA that `name` stands for, in fp32: "embedded:NAME", "hf:OWNER/NAME[@REVISION]" or a folder.

    Raises UsageError for a name that does not exist, DiffcernError for a model that cannot be had or read, or is of
    another kind.
    """
    import transformers  # slow to import, and only needed here

    folder = folder_of(name, allow_pickle=allow_pickle)
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"{name} does not answer questions: give embedded:NAME, hf:OWNER/NAME or a folder with a LLaVA, as "
            "`diffcern train answerer` writes it"
        )
    advice = "A LLaVA in transformers' format has config.json, model.safetensors, a processor and a tokenizer"
    with doing(f"loading the answerer {name}"), reading(Path(name), advice), quiet_reading():
        config = transformers.AutoConfig.from_pretrained(folder)
        if config.model_type != "llava":
            raise DiffcernError(
                f"{name} is a {config.model_type}; questions are answered by llava models: give one, such "
                "as embedded:scenes-answerer"
            )
        weights = stored(folder, name, allow_pickle)
        processor = transformers.AutoProcessor.from_pretrained(folder)
        build = partial(transformers.LlavaForConditionalGeneration, config)
        check_described(folder / "config.json", build, weights.files(folder, "transformers"))
        model, info = transformers.LlavaForConditionalGeneration.from_pretrained(folder, **weights.reading)
        check_loaded(f"of {name}", info)
        check_network(f"of {name}", model, weights.files(folder, "transformers"))
        return Answerer(model.float().requires_grad_(False), processor, name)


def save_answerer(answerer: Answerer, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Writes what `load_answerer` and transformers read, weights in `dtype`; config.json last, when all is there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as place:
        copy.deepcopy(answerer.model).to(dtype).save_pretrained(place)
        answerer.processor.save_pretrained(place)
        for path in sorted(Path(place).iterdir(), key=lambda path: path.name == "config.json"):
            path.chmod((folder.stat().st_mode & 0o666) | 0o600)  # weights are read by others too
            path.replace(folder / path.name)
