"""Monocular depth: the depth map itself is the condition (Diffusion-TTA, arXiv 2311.16102, section 3.3).

Predictors give metres, or relative inverse depth (MiDaS's disparity, of unknown scale and shift). Priors read the
logarithm of metres between two bounds, or the inverse depth from its least to its greatest; see `priors/spatial.py`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.nn import functional as F

from diffcern.data.base import Sample
from diffcern.data.maps import decode_depth, encode_depth
from diffcern.errors import DiffcernError
from diffcern.kinds import DEPTH
from diffcern.predictors.base import Predictor
from diffcern.priors.base import Prior
from diffcern.tasks.base import Keep, fitted, resized
from diffcern.tasks.segmentation import check_size, no_maps
from diffcern.types import Condition

TRAIN = "`diffcern train prior --maps depth`"
SMALLEST = 8  # pixels a side that are measured
NEAREST, FARTHEST = 1e-2, 1e3  # metres; beyond, a depth is no depth


class Depth:
    """metric: whether the predictor gives metres; else relative inverse depth.

    prior: None where no method asks one.
    """

    kind = DEPTH
    name = DEPTH.name
    class_names: tuple[str, ...] = ()

    def __init__(self, metric: bool, prior: Prior | None = None) -> None:
        self.metric = metric
        self.shape: tuple[int, int] | None = None
        if prior is not None and prior.spatial_shape and prior.maps and prior.maps.kind == DEPTH.name:
            self.near, self.far = prior.maps.near, prior.maps.far
            self.colour = torch.tensor(prior.colours[0]) if prior.colours else None
            self.shape = prior.spatial_shape[1:]

    @classmethod
    def joining(cls, predictor: Predictor, prior: Prior | None) -> Depth:
        return cls(predictor.metric, prior)

    def check(self, prior: Prior) -> None:
        if self.shape is None:
            raise DiffcernError(f"{no_maps(prior)}; depth needs one that reads it: {TRAIN}")
        if self.near is not None and not self.metric:
            raise DiffcernError(
                "this prior reads metres, and the predictor gives relative inverse depth: give one of metres"
            )

    def condition(self, output: Float[Tensor, "batch rows columns"], keep: Keep | None = None) -> Condition:
        """The map `[B, 1, h, w]` in [-1, 1] that the prior reads, or its picture `[B, 3, h, w]` in [0, 1], from the
        predictor's."""
        return Condition(spatial=self._maps(output if self.metric else None, None if self.metric else output))

    def condition_of_truth(self, depth: Float[Tensor, "batch rows columns"]) -> Condition:
        """The condition of a true depth in metres, valid everywhere (see `filled`)."""
        return Condition(spatial=self._maps(depth, None))

    def _maps(
        self, metres: Float[Tensor, "batch rows columns"] | None, inverse: Float[Tensor, "batch rows columns"] | None
    ) -> Float[Tensor, "batch channels height width"]:
        assert self.shape is not None  # see `check`
        if metres is not None:
            metres = metres.float().clamp(NEAREST, FARTHEST)
        if self.near is not None and self.far is not None and metres is not None:
            span = math.log(self.far / self.near)
            return resized(2 * (metres / self.near).log()[:, None] / span - 1, self.shape)
        disparity = 1 / metres if metres is not None else inverse
        assert disparity is not None  # one of the two is given
        low, high = disparity.flatten(1).amin(1), disparity.flatten(1).amax(1)
        scaled = (disparity - low[:, None, None]) / (high - low).clamp(min=1e-6)[:, None, None]
        if self.colour is not None:
            return resized(scaled[:, None], self.shape) * self.colour.to(scaled.device)[:, None, None]
        return resized(2 * scaled[:, None] - 1, self.shape)

    def check_sample(self, sample: Sample, like: Float[Tensor, "*channels height width"]) -> None:
        """Raises DiffcernError for a depth that is negative, infinite, unknown everywhere, tiny or of another ratio."""
        if sample.depth is None:
            return
        check_depth(sample.depth, sample.id)
        check_size(like, sample.depth, sample.id)
        if min(sample.depth.shape) < SMALLEST:
            raise DiffcernError(f"the depth of {sample.id} has fewer than {SMALLEST} pixels a side: too few for SSIM")

    def statistics(self, output: Float[Tensor, "height width"], sample: Sample) -> list[float]:
        """delta < 1.25, AbsRel, RMSE (metres), SSIM and 1, over the pixels whose depth is known.

        output: resized to the truth. Relative inverse depth is first brought to the truth's scale and shift
        by least squares, as is usual. SSIM: of the depths over the largest, unknown ones as the truth's. Empty without
        truth. Raises as `check_sample`.
        """
        if sample.depth is None:
            return []
        self.check_sample(sample, output)
        output, truth = output.cpu(), sample.depth.cpu().float()
        known = truth > 0
        answer = self.answer(output, truth).clamp(NEAREST, FARTHEST)
        a, d = answer[known], truth[known]
        delta = (torch.maximum(a / d, d / a) < 1.25).float().mean()
        rmse = (a - d).square().mean().sqrt()
        both = torch.stack([torch.where(known, answer, truth), truth])[:, None, None] / d.max()
        return [float(v) for v in (delta, ((a - d).abs() / d).mean(), rmse, _ssim(both))] + [1.0]

    encode = staticmethod(encode_depth)
    decode = staticmethod(decode_depth)

    def answer(
        self, output: Float[Tensor, "height width"], truth: Float[Tensor, "rows columns"]
    ) -> Float32[Tensor, "rows columns"]:
        """Metres; relative depth in the truth's scale and shift."""
        given = fitted(output, truth)[0].cpu()
        return given if self.metric else rescaled(given, truth, truth > 0)

    @staticmethod
    def loss(
        output: Float[Tensor, "batch height width"],
        truth: Float[Tensor, "batch rows columns"],
        label_smoothing: float = 0.0,
    ) -> Float[Tensor, ""]:
        """| log d - log d_hat |, over the pixels whose depth is known."""
        maps = F.interpolate(output[:, None], truth.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        known = truth > 0
        metres = maps[known].clamp(min=NEAREST)  # a network of another library may answer 0
        return (metres.log() - truth[known].log()).abs().mean()

    @staticmethod
    def change(before: Float[Tensor, "height width"], after: Float[Tensor, "height width"]) -> float:
        """The mean relative change."""
        return float(((after - before).abs() / before.abs().clamp(min=1e-6)).mean())

    @staticmethod
    def to_average(output: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch height width"]:
        """The depth itself."""
        return output.clone()

    @staticmethod
    def from_average(average: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch height width"]:
        return average


def rescaled(
    inverse: Float[Tensor, "rows columns"], truth: Float[Tensor, "rows columns"], known: Bool[Tensor, "rows columns"]
) -> Float32[Tensor, "rows columns"]:
    """Metres from relative inverse depth, by the scale and shift that fit the truth's inverse best."""
    x, y = inverse[known].double(), 1 / truth[known].double()
    slope, shift = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], 1), y[:, None]).solution[:, 0]
    return (1 / (slope * inverse.double() + shift).clamp(1 / FARTHEST, 1 / NEAREST)).float()


def _ssim(both: Float[Tensor, "2 1 1 rows columns"]) -> Float[Tensor, ""]:
    """Structural similarity of two maps in [0, 1] (Wang et al. 2004)."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # slow to import

    return structural_similarity_index_measure(both[0], both[1], data_range=1.0)  # type: ignore[return-value]


def check_depth(depth: Float[Tensor, "rows columns"], id: str) -> None:
    """Raises DiffcernError for a depth map that is negative or infinite somewhere, or known nowhere."""
    if not torch.isfinite(depth).all() or bool((depth < 0).any()):
        raise DiffcernError(f"the depth of {id} is negative or not finite somewhere: mark what is unknown as 0")
    if not bool((depth > 0).any()):
        raise DiffcernError(f"the depth of {id} is unknown (0) everywhere: leave this image out")


def filled(depth: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Depth whose unknown pixels (0) take the value of the nearest known one: for conditions only."""
    from scipy.ndimage import distance_transform_edt  # slow to import

    unknown = (depth <= 0).numpy()
    if not unknown.any():
        return depth
    rows, columns = distance_transform_edt(unknown, return_distances=False, return_indices=True)
    return depth[torch.from_numpy(rows).long(), torch.from_numpy(columns).long()]
