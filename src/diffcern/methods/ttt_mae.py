"""TTT-MAE (Gandelsman et al. 2022, arXiv 2209.07522): learn to reconstruct the test image, then classify it.

minimise  L(x) = E_mask mean over masked patches of || g(f(x_visible)) - x_patch ||^2     over the encoder f

x_patch normalised by its own mean and deviation; the answer is h(f(x)) of the whole image.
"""

from __future__ import annotations

import torch
from torch.func import functional_call

from diffcern.errors import UsageError
from diffcern.memory import check_memory
from diffcern.methods.base import Count, Method, Optimizer, Weights, call, descend, frozen_copy, stop
from diffcern.predictors import Predictor
from diffcern.predictors.mae import MaskedAutoencoder
from diffcern.rng import generator
from diffcern.types import Cost, Inputs, Prediction

OUTER = "model.reconstruction."  # of a parameter's name in the predictor


class TTTMAE(Method):
    """Adapts the encoder on one image, and freezes decoder (with its mask token) and head; of several images, on
    the mean of their losses.

    Defaults are the paper's: 20 steps of SGD at 5e-3 (its base rate 1e-2 x 128 / 256) with momentum 0.9, each on 128
    masks of 75 %. rows: how many masks are reconstructed at once. Raises UsageError for a predictor without a
    decoder.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        steps: Count = 20,
        masks: Count = 128,
        optimizer: str = "sgd",
        learning_rate: float = 5e-3,
        momentum: float = 0.9,
        rows: Count = 128,
    ) -> None:
        model = getattr(predictor, "model", None)
        if not isinstance(model, MaskedAutoencoder):
            raise UsageError(
                "ttt-mae needs a masked autoencoder as predictor: `diffcern train mae DATASET --out FOLDER` trains "
                "one, and FOLDER is its name"
            )
        check_memory(f"{masks:,} masks of {model.patches} patches", 4 * masks * model.patches, "give fewer masks")
        self.predictor = frozen_copy(predictor)
        self.optimizer = Optimizer(optimizer, learning_rate, momentum)
        self.steps, self.masks, self.rows = steps, masks, rows

    def init(self) -> Weights:
        encoder = self.predictor.model.reconstruction.encoder
        return Weights({f"{OUTER}encoder.{name}": p.detach().clone() for name, p in encoder.named_parameters()})

    def step(self, state: Weights, inputs: Inputs, seed: int) -> tuple[Prediction, Weights]:
        leaves, optimizer = self.optimizer.start(state)
        images = self.predictor.prepare(inputs.images)
        trace: list[list[float]] = [[] for _ in inputs.ids]
        for step in range(self.steps):
            gradients = [torch.zeros_like(leaf) for leaf in leaves.values()]
            for image, id, losses in zip(images, inputs.ids, trace, strict=True):
                rng = generator(seed, "mae", id, step)
                losses.append(self._accumulate(leaves, gradients, image, rng, 1 / len(inputs)))
            descend(leaves, optimizer, gradients)
        with torch.no_grad():
            output = call(self.predictor, leaves, inputs.images)
        return Prediction(output, [Cost()] * len(inputs), trace), stop(leaves, optimizer)

    def _accumulate(
        self,
        leaves: dict[str, torch.Tensor],
        gradients: list[torch.Tensor],
        image: torch.Tensor,
        rng: torch.Generator,
        share: float,
    ) -> float:
        """Adds `share` times the gradient of the image's loss over all masks, and returns the loss."""
        model = self.predictor.model
        encoder = {name.removeprefix(OUTER): leaf for name, leaf in leaves.items()}
        total = 0.0
        for noise in model.noise(self.masks, rng).to(image.device).split(self.rows):
            with torch.enable_grad():
                copies = image.expand(len(noise), -1, -1, -1)
                loss = functional_call(model.reconstruction, encoder, (copies, noise)).sum() / self.masks
                parts = torch.autograd.grad(share * loss, list(leaves.values()))
            for gradient, part in zip(gradients, parts, strict=True):
                gradient += part
            total += loss.item()
        return total
