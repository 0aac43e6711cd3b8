"""FOA (Niu et al. 2024, arXiv 2404.01650): a prompt among a vision transformer's tokens, found by forward passes alone.

minimise  sum_x H(p(x)) + lambda B/64 sum_i (||mu_i(X) - mu_i^source||_2 + ||sigma_i(X) - sigma_i^source||_2)
          over the prompt `[N_p, d]`, by CMA-ES (Hansen, arXiv 1604.00772): a population of prompts for each batch X

mu_i, sigma_i: of the class token behind layer i, i = 1 .. N;    the answer is of the batch's best prompt, with
e_N <- e_N + gamma (mu_N^source - m),    m <- 0.9 m + 0.1 mu_N(X)     (what the head reads)
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from diffcern.data import load_dataset, subset
from diffcern.errors import DiffcernError, UsageError
from diffcern.fingerprints import digest
from diffcern.methods.base import Count, Method, call, frozen_copy
from diffcern.methods.entropy import entropy
from diffcern.optional import optional
from diffcern.predictors import Predictor
from diffcern.resizing import Images
from diffcern.rng import drawing_from, generator
from diffcern.types import Cost, Inputs, Prediction
from diffcern.watching import doing

NEW = 0.1  # what the latest batch counts for in m
BATCH = 64  # the paper's, to which lambda belongs


@dataclass(frozen=True)
class FoaState:
    """The search as it stands (pycma's, pickled), and m `[d]` (None before a batch)."""

    search: bytes
    mean: Tensor | None = None


class FOA(Method):
    """Online by default habit; defaults are the paper's for ViT-B on ImageNet-C: batch 64, population 28, prompts 3
    (N_p), discrepancy 0.4 (lambda; 0.2 for ImageNet-R), shift 1 (gamma).

    source_images: a data set by name, of the kind that the predictor was trained on, of which source_size images tell
    mu and sigma of the source; their labels are not read. A batch takes population + 1 forward passes. Needs pycma (the
    extra `foa`) and one of timm's vision transformers that answers by its class token: DiffcernError for other
    networks, UsageError without source_images.
    """

    needs_batch = True

    def __init__(
        self,
        predictor: Predictor,
        *,
        source_images: str = "",
        source_size: Count = 32,
        prompts: Count = 3,
        population: Annotated[int, Field(ge=4)] = 28,
        discrepancy: Annotated[float, Field(ge=0)] = 0.4,
        shift: float = 1.0,
    ) -> None:
        self.predictor = frozen_copy(predictor)
        self.width = transformer_of(self.predictor).embed_dim
        if not source_images:
            raise UsageError(
                "foa compares with images of the kind that the predictor was trained on: set source_images to a data "
                "set (imagefolder:PATH, embedded:digits/train)"
            )
        self.prompts, self.discrepancy, self.shift = prompts, discrepancy, shift
        numpy = {"randn": normal, "seed": math.nan}  # its global generator is left alone
        options = {"popsize": population, "verbose": -9, **numpy}
        self.begin = optional("cma").CMAEvolutionStrategy([0.0] * (prompts * self.width), 1.0, options).pickle_dumps()
        images = subset(load_dataset(source_images), source_size, seed=0)
        with doing(f"looking at {len(images)} images of {source_images}"), torch.no_grad():
            device = self.predictor.mean.device
            _, seen = self._answer([images[k].image.to(device) for k in range(len(images))])
        self.source = seen.mean(1), seen.std(1, correction=0)  # [N, d] each
        self.loaded = digest([source_images, *images.ids])

    def init(self) -> FoaState:
        return FoaState(self.begin)

    @torch.no_grad()
    def step(self, state: FoaState, inputs: Inputs, seed: int) -> tuple[Prediction, FoaState]:
        search = pickle.loads(state.search)
        with drawing_from(generator(seed, "foa", search.countiter, *inputs.ids)):
            candidates = search.ask()
        prompts = [torch.tensor(c).float().view(self.prompts, -1).to(self.source[0].device) for c in candidates]
        answers = [self._answer(inputs.images, prompt) for prompt in prompts]
        values = [self._fitness(*answer) for answer in answers]
        search.tell(candidates, values)
        best = min(range(len(values)), key=values.__getitem__)
        now = answers[best][1][-1].mean(0)
        mean = now if state.mean is None else (1 - NEW) * state.mean + NEW * now
        logits, _ = self._answer(inputs.images, prompts[best], self.shift * (self.source[0][-1] - mean))
        trace = [[values[best] / len(inputs)]] * len(inputs)
        return Prediction(logits, [Cost()] * len(inputs), trace), FoaState(search.pickle_dumps(), mean)

    def _fitness(self, logits: Tensor, seen: Tensor) -> float:
        """Of a prompt's answers `[B, K]` and class tokens `[N, B, d]`; the smaller, the better."""
        mean, deviation = self.source
        apart = (seen.mean(1) - mean).norm(dim=1) + (seen.std(1, correction=0) - deviation).norm(dim=1)
        return float(entropy(logits).sum() + self.discrepancy * len(logits) / BATCH * apart.sum())

    def _answer(
        self, images: Images, prompt: Tensor | None = None, shift: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits `[B, K]` with the prompt `[N_p, d]` behind the class token and `shift` added to what the head reads;
        and the class token `[N, B, d]` behind each layer, behind the last as the head reads it, before the shift."""
        network, seen = transformer_of(self.predictor), list[Tensor]()

        def insert(block: nn.Module, given: Sequence[Any]) -> Any:
            tokens, first = given[0], network.num_prefix_tokens
            if prompt is None:
                return None
            more = prompt.to(tokens).expand(len(tokens), -1, -1)
            return torch.cat([tokens[:, :first], more, tokens[:, first:]], 1), *given[1:]

        def keep(block: nn.Module, given: Any, tokens: Tensor) -> None:
            seen.append(tokens[:, 0].float())

        def moved(head: nn.Module, given: Sequence[Tensor]) -> Any:
            seen.append(given[0].float())
            return None if shift is None else (given[0] + shift.to(given[0]),)

        hooks = [network.blocks[0].register_forward_pre_hook(insert), network.head.register_forward_pre_hook(moved)]
        hooks += [block.register_forward_hook(keep) for block in network.blocks[:-1]]
        try:
            return call(self.predictor, {}, images), torch.stack(seen)
        finally:
            for hook in hooks:
                hook.remove()


def normal(*shape: int) -> Any:
    """Numbers for pycma, from torch's global generator, which `drawing_from` an image's own stands in for."""
    return torch.randn(*shape, dtype=torch.float64).numpy()


def transformer_of(predictor: Predictor) -> Any:
    """timm's vision transformer in it. Raises DiffcernError where there is none whose head reads the class token."""
    from timm.models.vision_transformer import VisionTransformer  # slow to import

    for module in predictor.modules():
        if isinstance(module, VisionTransformer) and module.global_pool == "token":
            return module
    raise DiffcernError(
        "foa puts a prompt among the tokens of one of timm's vision transformers that answer by their class token, and "
        "this predictor is none: give one (timm:vit_base_patch16_224.augreg_in21k_ft_in1k), or take tent, eata or roid"
    )
