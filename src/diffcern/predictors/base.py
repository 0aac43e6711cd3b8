"""A predictor: any vision model, with the resize and normalisation it was trained with and the names of its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffcern.errors import UsageError
from diffcern.kinds import KINDS, Kind, TaskName
from diffcern.labels import BACKGROUND, normal
from diffcern.predictors.outputs import answer_of, input_dtype
from diffcern.resizing import Centre, Fit, Images, Size, centre_view, fitted_shape, interpolate, pair, resize_and_crop
from diffcern.spellings import Spellings

ANY_SIZE = 224  # side of images for a predictor that takes any size, where theirs differ


class Predictor(nn.Module):
    """Wraps a model so that it takes images `[B, 3, H, W]` in [0, 1] of any size, or B images `[3, H, W]` of any sizes.

    task says what comes out: "classification" logits `[B, K]`, "segmentation" logits `[B, K, H, W]`, "depth" a map
    `[B, H, W]`, in metres if `metric`, else inverse and relative; the last two in the size of the images that were
    given (bilinear). The model may answer with a tensor, or with one in a tuple, a dictionary or a ModelOutput, and
    have any precision (see `outputs`).
    class_names: K names, none for depth. class_ids: their WordNet ids ("n01440764") where known, which stay apart
    where names collide.

    size, crop, fit, interpolation, centre, multiple: how images are resized and cropped, see `resize_and_crop` and
    `fitted_shape`; size None takes them as they are. Classifiers take images of exactly the size as they are too
    (ImageNet-C's come cropped); dense tasks see the whole image, uncropped. Then (x - mean) / std. Everything is
    differentiable. Raises UsageError when there are not as many ids as names, for sizes, means and deviations that no
    image could be prepared with, and in the call as `answer_of`.
    """

    mean: Tensor
    std: Tensor
    kept: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        *,
        size: Size | None = None,
        crop: float = 1.0,
        fit: Fit | None = None,
        interpolation: str = "bilinear",
        centre: Centre = "even",
        multiple: int = 1,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        class_ids: Sequence[str] | None = None,
        task: TaskName = "classification",
        metric: bool = False,
    ) -> None:
        super().__init__()
        if class_ids is not None and len(class_ids) != len(class_names):
            raise UsageError(f"class_ids are as many as class_names, not {len(class_ids)} and {len(class_names)}")
        _check_preparation(size, crop, mean, std)
        if not isinstance(model, nn.Module):
            raise UsageError(f"the network is a {type(model).__name__}: wrap it in a torch.nn.Module that calls it")
        self.model = model
        self.class_names = tuple(class_names)
        self.class_ids = None if class_ids is None else tuple(class_ids)
        self.task = task
        self.metric = metric
        self.size = size
        self.crop = crop
        self.fit = fit
        self.interpolation = interpolation
        self.centre = centre
        self.multiple = multiple
        self._outputs = len(self.class_names)  # of the model, whatever `restrict` leaves of them
        self._asked = False
        self.register_buffer("kept", None, persistent=False)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.eval()

    def restrict(self, names: Sequence[str]) -> Predictor:
        """Answers with these classes only, in this order, and by these names; in place, and the logits of the others
        are not looked at.

        A class may be named as `spellings.Spellings` finds it. Raises UsageError that names what the predictor does not
        know, what may be several of its classes, and what stands twice; and for no names.
        """
        if not names:
            raise UsageError("asked for no classes: name at least one")
        if tuple(names) != self.class_names:
            chosen = Spellings(self.class_names, self.class_ids).indices(names)
            index = torch.tensor(chosen, device=self.mean.device)
            self.kept = index if self.kept is None else self.kept[index]
            self.class_ids = None if self.class_ids is None else tuple(self.class_ids[i] for i in chosen)
            self.class_names = tuple(names)
        return self

    @property
    def kind(self) -> Kind:
        """The row of `kinds.KINDS` of its task."""
        return KINDS[self.task]

    def view(self, images: Images) -> Images:
        """The part of each image that the predictor looks at, in the image's own pixels.

        That is what a prior is shown: its opinion is to be about the same thing. Dense tasks look at all of an image,
        and so does a classifier that squeezes it or finds it of its size.
        """
        return self._view(images) if isinstance(images, Tensor) else [self._view(image) for image in images]

    def _view(self, image: Tensor) -> Tensor:
        if self.size is None or self.kind.dense or tuple(image.shape[-2:]) == pair(self.size):
            return image
        height, width = pair(self.size)
        squeezed = self.fit == "squeeze" or (self.fit is None and self.crop >= 1)
        return centre_view(image, None if squeezed else width / height, self.crop)

    def of_view(self, views: Tensor) -> Tensor:
        """Pictures `[B, 3, h, w]` of what `view` shows, in any size, brought to the predictor's: it cuts nothing more
        off."""
        if self.size is None or self.kind.dense:
            return views
        return interpolate(views, pair(self.size), self.interpolation)

    def resize(self, images: Images) -> Tensor:
        """The part of the preparation that changes the shape: `[B, 3, height, width]` in [0, 1].

        Every image is treated as if it were alone. Where a predictor takes any size and the images have several, they
        are squeezed to squares of `ANY_SIZE`. Raises UsageError for maps of images of several sizes.
        """
        if not isinstance(images, Tensor):
            if len({image.shape for image in images}) == 1:
                return self.resize(torch.stack(list(images)))
            if self.kind.dense:
                raise UsageError("maps of images of different sizes do not stack: give these images one by one")
            if self.size is None:
                return torch.cat([resize_and_crop(image[None], ANY_SIZE) for image in images])
            return torch.cat([self.resize(image[None]) for image in images])
        if self.size is None:
            return images
        if not self.kind.dense:
            return resize_and_crop(images, self.size, self.crop, self.fit, self.interpolation, self.centre)
        shape = fitted_shape(images.shape[-2:], pair(self.size), self.fit or "squeeze", self.multiple)
        return interpolate(images, shape, self.interpolation)

    def prepare(self, images: Images) -> Tensor:
        """Resize, centre crop and normalise: what the model sees."""
        return (self.resize(images) - self.mean) / self.std

    def forward(self, images: Images) -> Tensor:
        pixels = self.prepare(images).to(input_dtype(self.model))
        output = answer_of(self.model(pixels), self.kind, self._outputs, len(images), first=not self._asked)
        self._asked = True
        if self.kept is not None:
            output = output[:, self.kept]
        if not self.kind.dense:
            return output
        maps, shape = output if output.ndim == 4 else output[:, None], images[0].shape[-2:]
        return F.interpolate(maps, shape, mode="bilinear", align_corners=False).reshape(*output.shape[:-2], *shape)


def without_background(predictor: Predictor) -> Predictor:
    """ImageNet's 1,000 classes alone, in place, of a head that has a background class before them."""
    names = predictor.class_names
    if len(names) == 1001 and predictor.class_ids and normal(names[0]) in BACKGROUND:
        return predictor.restrict(names[1:])
    return predictor


class Output(nn.Module):
    """A model that answers with a dictionary, reduced to one of its tensors."""

    def __init__(self, model: nn.Module, key: str) -> None:
        super().__init__()
        self.model = model
        self.key = key

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)[self.key]


def _check_preparation(size: Size | None, crop: float, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raises UsageError for what would fail, or give NaN, once an image is prepared."""
    if not all(len(values) in (1, 3) and all(map(math.isfinite, values)) for values in (mean, std)) or min(std) <= 0:
        raise UsageError(f"mean and std are of 3 channels, finite, std above 0, not {list(mean)} and {list(std)}")
    sides = () if size is None else (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) not in (0, 2) or any(side < 1 for side in sides) or not 0 < crop < math.inf:
        raise UsageError(f"size is a side or (height, width) above 0, crop a share above 0, not {size} and {crop}")
