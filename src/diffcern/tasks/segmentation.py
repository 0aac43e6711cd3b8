"""Semantic segmentation: a mixture of classes at every pixel, put to the prior as maps.

    c^u = sum_k p_k^u l_k,    p^u = softmax of the logits at pixel u    (Diffusion-TTA, arXiv 2311.16102, section 3.3)

The embeddings l_k are the rows of the first layer of the prior, which is linear: it gets the shares p_k^u themselves.
A ControlNet that reads a picture gets the mixture of the classes' colours in its place: l_k is the colour of class k.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor
from torch.nn import functional as F

from diffcern.data.base import VOID, Sample
from diffcern.data.maps import decode_mask, encode_mask, foreign
from diffcern.errors import DiffcernError
from diffcern.kinds import SEGMENTATION
from diffcern.predictors.base import Predictor
from diffcern.priors.base import Prior
from diffcern.spellings import Spellings
from diffcern.tasks.base import Keep, OfClasses, fitted, name_map, resized
from diffcern.types import Condition

TRAIN = "`diffcern train prior --maps segmentation`"


class Segmentation(OfClasses):
    """Maps the predictor's K classes onto the channels of the prior's maps, by name.

    prior: None where no method asks one.
    """

    kind = SEGMENTATION
    name = SEGMENTATION.name

    def __init__(self, class_names: Sequence[str], prior: Prior | None = None) -> None:
        self.class_names = tuple(class_names)
        self.shape: tuple[int, int] | None = None
        known = shown(prior) if prior is not None else ()
        if prior is not None and prior.spatial_shape is not None and not Spellings(known).unknown(class_names):
            self.mapping = name_map(class_names, known)
            if prior.colours:
                self.mapping = self.mapping @ torch.tensor(prior.colours)
            self.shape = prior.spatial_shape[1:]

    @classmethod
    def joining(cls, predictor: Predictor, prior: Prior | None) -> Segmentation:
        return cls(predictor.class_names, prior)

    def check(self, prior: Prior) -> None:
        if known := shown(prior):
            name_map(self.class_names, known)
        elif self.shape is None:
            raise DiffcernError(f"{no_maps(prior)}; segmentation needs one that reads maps of classes: {TRAIN}")

    def condition(self, output: Float[Tensor, "batch classes rows columns"], keep: Keep | None = None) -> Condition:
        """Shares of classes, or their colours mixed, as maps at the prior's size, from logits."""
        return Condition(spatial=self._maps(torch.softmax(output.float(), 1)))

    def condition_of_truth(self, mask: Integer[Tensor, "batch rows columns"]) -> Condition:
        """The condition of a true mask over this task's classes; void pixels have no class at all."""
        void = mask == VOID
        shares = F.one_hot(mask.masked_fill(void, 0), len(self.class_names)).permute(0, 3, 1, 2).float()
        return Condition(spatial=self._maps(shares.masked_fill(void[:, None], 0.0)))

    def _maps(
        self, shares: Float[Tensor, "batch classes rows columns"]
    ) -> Float[Tensor, "batch channels height width"]:
        assert self.shape is not None  # see `check`
        return torch.einsum("bkhw,kc->bchw", resized(shares, self.shape), self.mapping.to(shares.device))

    def check_sample(self, sample: Sample, like: Float[Tensor, "channels height width"]) -> None:
        """Raises DiffcernError for a mask of another ratio, or with a class that there is not."""
        if sample.mask is None:
            return
        check_size(like, sample.mask, sample.id)
        count = len(self.class_names)
        unknown = foreign(sample.mask, count).unique().tolist()
        if unknown:
            raise DiffcernError(
                f"the mask of {sample.id} holds {unknown[:5]}, and there are {count} classes, 0 to {count - 1} ({VOID} "
                f"is void): name all classes of the masks, or mark what is none as void{_convention(unknown, count)}"
            )

    def statistics(self, output: Float[Tensor, "classes height width"], sample: Sample) -> list[float]:
        """Pixels per class where answer and truth agree, of the answer, of the truth; those without truth are left out.

        output: logits, resized to the mask (bilinear). Raises as `check_sample`.
        """
        if sample.mask is None:
            return []
        self.check_sample(sample, output)
        output, mask, count = output.cpu(), sample.mask.cpu(), len(self.class_names)
        known = mask != VOID
        answer, truth = self.answer(output, mask)[known], mask[known]
        areas = (answer[answer == truth], answer, truth)
        return torch.cat([torch.bincount(area, minlength=count) for area in areas]).double().tolist()

    encode = staticmethod(encode_mask)
    decode = staticmethod(decode_mask)

    def answer(
        self, output: Float[Tensor, "classes height width"], truth: Integer[Tensor, "rows columns"]
    ) -> Integer[Tensor, "rows columns"]:
        """The likeliest class of each pixel of the truth, from logits."""
        return fitted(output, truth).argmax(0).cpu()

    @staticmethod
    def loss(
        output: Float[Tensor, "batch classes height width"],
        truth: Integer[Tensor, "batch rows columns"],
        label_smoothing: float = 0.0,
    ) -> Float[Tensor, ""]:
        """Cross entropy of logits with masks, over the pixels that are not void."""
        maps = F.interpolate(output, truth.shape[-2:], mode="bilinear", align_corners=False)
        return F.cross_entropy(maps, truth, ignore_index=VOID, label_smoothing=label_smoothing)

    @staticmethod
    def change(before: Float[Tensor, "classes height width"], after: Float[Tensor, "classes height width"]) -> float:
        """The share of pixels of another class."""
        return float((before.argmax(0) != after.argmax(0)).float().mean())


def _convention(unknown: Sequence[int], count: int) -> str:
    """What published masks with such values mean, for a message."""
    if list(unknown) == [count]:
        return ". Where classes count from 1 and 0 is void, as in ADE20K's masks, begin the names with void"
    if count == 19 and max(unknown) <= 33:
        return ". Cityscapes' labelIds run to 33: its 19 classes are those of the labelTrainIds"
    return ""


def shown(prior: Prior) -> tuple[str, ...]:
    """The classes that the prior's maps show; none where they show something else."""
    return prior.maps.names if prior.maps is not None else ()


def no_maps(prior: Prior) -> str:
    """What a prior's maps are, where they are not what is needed."""
    if prior.spatial_shape is None:
        return "this prior takes no maps"
    if prior.maps is None:
        return "this prior's maps show nobody knows what (of a ControlNet, +controlnet-seg or +controlnet-depth say it)"
    return f"this prior's maps show {prior.maps.kind}"


def check_size(output: Float[Tensor, "*channels height width"], truth: Shaped[Tensor, "rows columns"], id: str) -> None:
    """Raises DiffcernError unless both have one aspect ratio, to within a pixel."""
    (height, width), (rows, columns) = output.shape[-2:], truth.shape
    if abs(height * columns - width * rows) > max(height, width, rows, columns):
        raise DiffcernError(f"the image of {id} has {width} x {height} pixels and its truth {columns} x {rows}")
