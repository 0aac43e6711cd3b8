"""GDC, generative distribution classification (arXiv 2412.12594): nearer to which class of the images that the prior
makes?

    answer = argmax_k  log N(encoder(x); mu_k, S)        mu_k, S: of features of images that were sampled under c_k

The denoiser is asked beforehand, not for each image. Nothing here leans on what the predictor answers: of it only the
features are read, and another encoder can take its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffcern.alignment import GENERATED, read_alignment
from diffcern.data import ImageFolder
from diffcern.errors import DiffcernError, UsageError
from diffcern.fingerprints import digest, fingerprint
from diffcern.methods.base import Count, Method, frozen_copy, frozen_view
from diffcern.predictors import Predictor
from diffcern.predictors.encoder import Encoder, load_encoder
from diffcern.priors import Prior
from diffcern.prototypes import FEWEST, Covariance
from diffcern.prototypes import Prototypes as Gaussians
from diffcern.resizing import Images
from diffcern.sampling import sample
from diffcern.tasks import Classification
from diffcern.types import Cost, Inputs, Prediction


class Prototypes(Method):
    """per_class images of each class, sampled from the prior in `steps` steps of `solver` when the method is built; or,
    with generated, those in the folder of `diffcern align`, which are not made again (then how they are sampled is of
    no effect). What is sampled takes classes x per_class x steps evaluations, once.

    encoder: "" is the predictor itself (what its last linear layer is given), else the name of any predictor or
    backbone ("timm:vit_small_patch14_dinov2.lvd142m", "hf:facebook/dinov2-small"). covariance: "shared" by all classes
    or each its "own". temperature divides the log likelihood: over many features it is far too sure of itself. Images
    are shown to the encoder as the prior would, at its resolution, where the prior is one of pixels.
    """

    small: ClassVar[Mapping[str, Any]] = {"per_class": 16, "steps": 10}

    def __init__(
        self,
        predictor: Predictor,
        prior: Prior,
        task: Classification,
        *,
        generated: str = "",
        per_class: Count = 64,
        steps: Count = 50,
        solver: str = "ddim",
        guidance_scale: float = 1.0,
        encoder: str = "",
        covariance: Covariance = "shared",
        temperature: float = 1.0,
        rows: Count = 64,
    ) -> None:
        if not temperature > 0:
            raise UsageError(f"temperature must be above 0, not {temperature}")
        self.predictor, self.prior = predictor, frozen_view(prior)
        self.encoder = load_encoder(encoder).to(prior.device) if encoder else Encoder(frozen_copy(predictor))
        self.temperature, self.rows = temperature, rows
        names = task.class_names
        if generated:
            features, classes, made = self._of_folder(Path(generated).expanduser(), names)
        else:
            if per_class < FEWEST:
                raise UsageError(f"per_class is {FEWEST} or more: a covariance is of several images, not {per_class}")
            features, classes = self._sampled(task, per_class, steps, solver, guidance_scale)
            made = ""
        self.gaussians = Gaussians(features, classes, names, covariance)
        used = [fingerprint(self.encoder.predictor) if encoder else "", made]
        self.loaded = digest(used) if any(used) else ""

    def init(self) -> None:
        return None

    @torch.no_grad()
    def step(self, state: None, inputs: Inputs, seed: int) -> tuple[Prediction, None]:
        return Prediction(self.log_likelihood(inputs) / self.temperature, [Cost()] * len(inputs)), None

    @torch.no_grad()
    def log_likelihood(self, inputs: Inputs) -> Tensor:
        """log p(z | k) of every image, `[B, K]`."""
        seen = self.predictor.view(inputs.images)
        if self.prior.pixels:
            seen = self.prior.decode(self.prior.latents(seen))
        return self.gaussians.log_likelihood(self._features(seen))

    def _features(self, images: Images) -> Tensor:
        """Of pictures of what is looked at: the encoder cuts nothing more off."""
        if isinstance(images, Tensor):
            return self.encoder(self.encoder.predictor.of_view(images))
        return torch.cat([self._features(image[None]) for image in images])

    @torch.no_grad()
    def _sampled(
        self, task: Classification, per_class: int, steps: int, solver: str, guidance_scale: float
    ) -> tuple[Tensor, Tensor]:
        """Features of images that are made here, and the class of each."""
        device = self.prior.device
        hypotheses, classes = task.hypotheses(device), torch.arange(len(task.class_names)).repeat(per_class)
        ids = [f"{task.class_names[k]}/{index // len(task.class_names)}" for index, k in enumerate(classes.tolist())]
        pieces = []
        for part in torch.arange(len(ids)).split(self.rows):
            chosen = [ids[i] for i in part.tolist()]
            condition = hypotheses[classes[part].to(device)]
            how: dict[str, Any] = {"steps": steps, "solver": solver, "guidance_scale": guidance_scale}
            latents = sample(self.prior, chosen, condition, **how, rows=self.rows)
            pieces.append(self._features(self.prior.decode(latents)))
        return torch.cat(pieces), classes.to(device)

    @torch.no_grad()
    def _of_folder(self, folder: Path, names: tuple[str, ...]) -> tuple[Tensor, Tensor, str]:
        """Features of what `diffcern align` generated, the class of each image, and what tells the folder apart.

        Raises UsageError where there is no such folder, or of other classes.
        """
        alignment = read_alignment(folder)
        if set(names) - set(alignment.classes):
            raise UsageError(f"{folder} holds images of other classes than these: {', '.join(alignment.classes[:6])}")
        if not (folder / GENERATED).is_dir():
            raise UsageError(f"{folder} holds no generated images yet: run `diffcern align` to its end first")
        images = ImageFolder(folder / GENERATED, labelled=True, class_names=alignment.classes)
        pieces, classes = [], []
        for index in range(len(images)):
            image = images[index]
            if (name := alignment.classes[image.target]) in names:
                pieces.append(self._features(image.image[None].to(self.prior.device)))
                classes.append(names.index(name))
        if not pieces:
            raise DiffcernError(f"{folder / GENERATED} holds no image of these classes: run `diffcern align` for them")
        made = digest([list(images.ids), alignment.fingerprints, alignment.sampling, alignment.seed])
        return torch.cat(pieces), torch.tensor(classes, device=self.prior.device), made
