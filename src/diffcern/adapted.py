"""A method as a torch module: `y = adapted(images)` adapts and predicts, `adapted.reset()` forgets."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffcern.errors import UsageError
from diffcern.fingerprints import content_id
from diffcern.methods import build_method
from diffcern.methods.base import Method
from diffcern.methods.presets import over_preset
from diffcern.moving import moved, networks_in
from diffcern.predictors import Predictor
from diffcern.priors import Prior
from diffcern.resizing import Images
from diffcern.tasks import task_of
from diffcern.types import Inputs, Prediction, concatenate

LONELY = (
    "one image has no batch statistics, and this method reads them: its answer means nothing. Give several images at a "
    "time (the last batch of a loader too: drop_last=True), or a method with a source_count"
)


class AdaptedModel(nn.Module):
    """Drops into any evaluation loop that takes a torch module (RobustBench's, timm's, your own).

    online: carry the adapted state from call to call until `reset()`; otherwise every image is an episode of its
    own (every call, for a method that needs a batch). The state is a value that this module holds; the models given
    to the method never change; the method holds private copies, which this module's parameters are: in eval mode
    whatever is asked of it, moved by `to(device)` together with the state. `prediction` keeps the last call's costs and
    traces.
    """

    def __init__(self, method: Method, *, online: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.method = method
        self.online = online
        self.seed = seed
        self.prediction: Prediction | None = None
        self.networks = nn.ModuleList(networks_in(method))
        self.reset()

    def reset(self) -> None:
        """Forgets what was adapted: back to the models as given."""
        self.state = self.method.init()

    def train(self, mode: bool = True) -> AdaptedModel:
        """Changes nothing but the flag: a method decides itself what its networks do."""
        self.training = mode
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> AdaptedModel:
        """`to(device)` and its like. Raises UsageError for another precision."""
        if fn(torch.zeros(0)).dtype != torch.float32:
            raise UsageError(
                "the precision of a method's networks is theirs: load_prior(..., dtype=...), or your network's own "
                "before it is wrapped in diffcern.Predictor"
            )
        self.method, self.state = moved((self.method, self.state), fn)
        return self

    def forward(self, images: Images, ids: Sequence[str] | None = None) -> Tensor:
        """Images `[B, 3, H, W]`, or B of any sizes, float in [0, 1] -> logits `[B, K]`, of pixels `[B, K, H, W]`, or
        depth `[B, H, W]`.

        ids key the random numbers; without them each image's own content does, so that the same image gives the
        same answer in any batch. Raises UsageError for anything else than such images, or other than one id for each.
        """
        check_images(images)
        if ids is not None and len(ids) != len(images):
            raise UsageError(f"one id for each image: {len(images)} images, {len(ids)} ids")
        # Evaluation loops run under no_grad or inference_mode; adapting needs gradients of its own.
        with torch.inference_mode(False), torch.enable_grad():
            images = _usable(images) if isinstance(images, Tensor) else [_usable(image) for image in images]
            inputs = Inputs(images, [content_id(image) for image in images] if ids is None else ids)
            if len(images) == 1 and not self.method.answers_alone:
                warnings.warn(LONELY, stacklevel=2)
            if self.online:
                self.prediction, self.state = self.method.step(self.state, inputs, self.seed)
            elif self.method.needs_batch:
                self.prediction, _ = self.method.step(self.method.init(), inputs, self.seed)
            else:
                episodes = [inputs[i : i + 1] for i in range(len(inputs))]
                self.prediction = concatenate(
                    [self.method.step(self.method.init(), episode, self.seed)[0] for episode in episodes]
                )
            return self.prediction.output.detach()


def _usable(images: Tensor) -> Tensor:
    """In fp32, and outside of inference mode."""
    return (images.clone() if images.is_inference() else images).float()


def check_images(images: Images) -> None:
    """Raises UsageError unless images are `[B, 3, H, W]`, or a list of B `[3, H, W]`; floating point, finite and in
    [0, 1], at least one."""
    if isinstance(images, list | tuple) and images and all(isinstance(image, Tensor) for image in images):
        for image in images:
            check_images(image[None])
        return
    if not isinstance(images, Tensor):
        raise UsageError(
            f"images are a tensor [B, 3, H, W] or a list of [3, H, W], not a {type(images).__name__}: "
            "torch.as_tensor(...)"
        )
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[1] != 3 or not images.numel():
        raise UsageError(f"images are [B, 3, H, W] with B of at least 1, not {list(shape)}")
    if not images.is_floating_point():
        raise UsageError(f"images are floating point in [0, 1], not {images.dtype}: images.float() / 255")
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # false for NaN
        raise UsageError(
            f"pixels are in [0, 1], not in [{low:.3g}, {high:.3g}]; predictor and prior normalise them themselves"
        )


def adapt(
    predictor: Predictor,
    prior: Prior | None = None,
    method: str = "diffusion-tta",
    *,
    preset: str = "small",
    online: bool = False,
    seed: int = 0,
    **options: Any,
) -> AdaptedModel:
    """A method by name over a predictor and a prior, as a torch module.

    preset: "paper" (published values) or "small" (for small models); options override it, see `diffcern list methods`.
    Raises UsageError for unknown names or options and for a bare module (wrap your own in `diffcern.Predictor`),
    DiffcernError where the label spaces do not meet.
    """
    if not isinstance(predictor, Predictor) or not isinstance(prior, Prior | None):
        raise UsageError(
            f"adapt takes a diffcern.Predictor and a diffcern.Prior, not {type(predictor).__name__} and "
            f"{type(prior).__name__}; wrap a network of yours: diffcern.Predictor(network, class_names, size=224)"
        )
    task = task_of(predictor, prior)
    chosen = over_preset(method, preset, options, task.name)
    return AdaptedModel(build_method(method, predictor, prior, task, chosen), online=online, seed=seed)
