"""TPT, test-time prompt tuning (Shu et al. 2022, arXiv 2209.07511): CLIP should be sure and say the same of the views
that it is surest of; only what is said in front of each class's name moves.

minimise  H(m) = -sum_k m_k log m_k,    m = (1/|S|) sum_{b in S} p(y | a_b(x), v)        over v = (v_1, ..., v_M)

p(y = k | x, v) = softmax_k( scale <image(x), text([v_1, ..., v_M, name_k])> )           S: the share of lowest H(p)
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from diffcern.errors import UsageError
from diffcern.memory import check_memory
from diffcern.methods.base import Count, Method, Optimizer, Weights, call, descend, frozen_copy, stop
from diffcern.methods.entropy import entropy
from diffcern.methods.memo import marginal_entropy
from diffcern.predictors import Predictor
from diffcern.predictors.clip import ZeroShot
from diffcern.rng import drawing_from, generator
from diffcern.types import Cost, Inputs, Prediction
from diffcern.words import check_words

TEXT = "model.text"  # in a CLIP predictor: the features of its classes
CONTEXT = "tower.embeddings.token_embedding.context"  # in `Prompts`: v


class TPT(Method):
    """A few steps on one image, then the answer for the image itself; of several images, on their mean entropy.

    Defaults are the paper's: the image and 63 random crops of it, mirrored or not, of which the surest tenth counts;
    one step of AdamW at 5e-3 (with torch's weight decay of 0.01). template: the words in front of {} are where the M
    context vectors begin, the same for all classes; those behind it stay. It takes the place of the predictor's own
    prompts. share: of the views, rounded down, at least one. Raises UsageError for a predictor that is no CLIP with
    labels of its own, for a template without {} or with nothing in front of it, and for a prompt that is too long or
    has a word which the tokenizer does not know.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        template: str = "a photo of a {}.",
        views: Count = 64,
        share: Annotated[float, Field(gt=0, le=1)] = 0.1,
        steps: Count = 1,
        optimizer: str = "adamw",
        learning_rate: float = 5e-3,
    ) -> None:
        model = getattr(predictor, "model", None)
        texts = model.texts if isinstance(model, ZeroShot) else None
        if texts is None:
            raise UsageError(
                "tpt learns words for a CLIP, and this predictor reads none: give one by name, with labels, as in "
                '--predictor hf:openai/clip-vit-base-patch32 --labels "cat,dog"; SigLIP is none'
            )
        side = predictor.size if isinstance(predictor.size, int) else max(predictor.size or (1,))
        check_memory(f"{views:,} views of {side} pixels a side", 12 * views * side**2, "give fewer views")
        self.predictor = frozen_copy(predictor)
        self.prompts = Prompts(*texts.read(), texts.labels, template).to(predictor.mean.device)
        self.optimizer = Optimizer(optimizer, learning_rate)
        self.views, self.kept, self.steps = views, max(1, int(views * share)), steps

    def init(self) -> Weights:
        return Weights({CONTEXT: self.prompts.get_parameter(CONTEXT).detach().clone()})

    def step(self, state: Weights, inputs: Inputs, seed: int) -> tuple[Prediction, Weights]:
        leaves, optimizer = self.optimizer.start(state)
        seen = self.predictor.resize(inputs.images)
        shape = (seen.shape[-2], seen.shape[-1])
        rngs = [generator(seed, "tpt", id) for id in inputs.ids]
        views = torch.cat(
            [
                torch.cat([plain[None], crops(image, self.views - 1, rng, shape)])
                for plain, image, rng in zip(seen, inputs.images, rngs, strict=True)
            ]
        )
        trace: list[list[float]] = [[] for _ in inputs.ids]
        for _ in range(self.steps):
            with torch.enable_grad():
                logits = self._answer(leaves, views).unflatten(0, (len(inputs), self.views))
                losses = marginal_entropy(surest(logits, self.kept))
                gradients = torch.autograd.grad(losses.mean(), list(leaves.values()))
            descend(leaves, optimizer, gradients)
            for losses_of, loss in zip(trace, losses.tolist(), strict=True):
                losses_of.append(loss)
        with torch.no_grad():
            output = self._answer(leaves, seen)
        return Prediction(output, [Cost()] * len(inputs), trace), stop(leaves, optimizer)

    def _answer(self, leaves: dict[str, Tensor], images: Tensor) -> Tensor:
        return call(self.predictor, {TEXT: functional_call(self.prompts, leaves, ())}, images)


class Prompts(nn.Module):
    """Text features `[K, D]` of length 1 of labels behind a context, which is learned (see `Behind`)."""

    def __init__(self, model: Any, tokenizer: Any, labels: tuple[str, ...], template: str) -> None:
        super().__init__()
        if template.count("{}") != 1 or not template.partition("{}")[0].strip():
            raise UsageError(f'template is words with {{}} behind them, as "a photo of a {{}}.", not {template!r}')
        prompts = [template.replace("{}", label) for label in labels]
        limit = model.config.text_config.max_position_embeddings
        for prompt in prompts:
            check_words(tokenizer, prompt)
            if len(tokenizer(prompt)["input_ids"]) > limit:
                raise UsageError(f"the prompt {prompt!r} is longer than the {limit} tokens of this CLIP: shorten it")
        words = tokenizer(template.partition("{}")[0].strip())["input_ids"][1:-1]  # without begin and end
        tokens = tokenizer(prompts, return_tensors="pt", padding=True)
        self.register_buffer("ids", tokens["input_ids"])
        self.register_buffer("mask", tokens["attention_mask"])
        self.tower, self.projection = frozen_copy(model.text_model), frozen_copy(model.text_projection)
        embeddings = self.tower.embeddings
        embeddings.token_embedding = Behind(embeddings.token_embedding, torch.tensor(words))

    def forward(self) -> Tensor:
        pooled = self.tower(self.ids, attention_mask=self.mask).pooler_output
        return F.normalize(self.projection(pooled), dim=-1)


class Behind(nn.Module):
    """Embeddings `[K, L, E]` of tokens `[K, L]`, of which those behind the first are the context `[M, E]`."""

    def __init__(self, embedding: nn.Module, words: Tensor) -> None:
        super().__init__()
        self.embedding = embedding
        self.context = nn.Parameter(embedding(words).detach().clone(), requires_grad=False)

    def forward(self, tokens: Tensor) -> Tensor:
        told = self.embedding(tokens)
        context = self.context.expand(len(tokens), -1, -1)
        return torch.cat([told[:, :1], context, told[:, 1 + context.shape[1] :]], 1)


def surest(logits: Tensor, kept: int) -> Tensor:
    """Of each image's views the `kept` of lowest entropy: `[n, B, K]` -> `[n, kept, K]`."""
    entropies = entropy(logits.detach().flatten(0, 1)).unflatten(0, logits.shape[:2])
    index = entropies.argsort(dim=1, stable=True)[:, :kept, None]
    return logits.gather(1, index.expand(-1, -1, logits.shape[-1]))


def crops(image: Tensor, count: int, rng: torch.Generator, size: tuple[int, int]) -> Tensor:
    """Random crops `[count, 3, *size]` of an image `[3, H, W]`, mirrored or not, of 8 to 100 % of its area."""
    from torchvision.transforms.v2 import Compose, RandomHorizontalFlip, RandomResizedCrop

    crop = Compose([RandomResizedCrop(size, antialias=True), RandomHorizontalFlip()])
    with drawing_from(rng):
        drawn = [crop(image) for _ in range(count)]
    return torch.stack(drawn).clamp(0, 1) if drawn else image.new_empty(0, *image.shape[:1], *size)
