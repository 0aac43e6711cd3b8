"""Image-text matching from denoising errors: the caption that explains the image best, the image that it explains best.

    text:   for every image i,   argmin_k e(i, c_k) = i
    image:  for every caption k, argmin_i e(i, c_k) = k         corrected: e(i, c_k) - e(i, no caption)
    group:  both

as Winoground scores it (Thrush et al. 2022, arXiv 2204.03162) with e of the Diffusion Classifier (arXiv 2303.16203).
The correction (DiffusionITM, Krojer et al. 2023, arXiv 2305.16397) takes away how hard an image is in any case.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffcern.contests import Comparison
from diffcern.data.pairs import TAGS
from diffcern.errors import UsageError
from diffcern.metrics import wilson

PLAIN, CORRECTED = ("text", "image", "group"), ("image_corrected", "group_corrected")  # the latter need a prior
SCORES = (*PLAIN, *CORRECTED)


def check_example(images: int, captions: int) -> None:
    """Raises UsageError where nothing is asked of an example: its one image has no other caption."""
    if images == captions == 1:
        raise UsageError(
            "one image and one caption leave nothing to tell apart: give the row negatives, or another row's group"
        )


def matches(
    errors: Float[Tensor, "images captions"], unconditional: Float[Tensor, " images"] | None = None
) -> dict[str, bool]:
    """Each of `SCORES` for one example: right or not; a tie is wrong.

    errors: of image i under caption k, where caption i < I describes image i and further ones describe none;
    similarities with their sign changed serve as well. unconditional: of each image without a caption; None leaves out
    the corrected scores. Raises as `check_example`.
    """
    check_example(*errors.shape)
    text = _least_on_diagonal(errors)
    image = _least_on_diagonal(errors[:, : len(errors)].T)
    scores = {"text": text, "image": image, "group": text and image}
    if unconditional is None:
        return scores
    corrected = _least_on_diagonal((errors - unconditional[:, None])[:, : len(errors)].T)
    return scores | {"image_corrected": corrected, "group_corrected": text and corrected}


def comparisons(
    images: int, captions: int, listed: Sequence[Collection[int]] | None = None
) -> dict[str, list[Comparison]]:
    """What each of `SCORES` but the groups' rests on, over entries `i * (captions + 1) + k`: the error of image i under
    caption k, or under none (the last k).

    listed: the captions that an image's own is compared with, of each image; where its own is not among them, the text
    score is lost before any comparison, and has none. Raises as `check_example`.
    """
    check_example(images, captions)
    rivals = [range(captions)] * images if listed is None else listed

    def at(image: int, caption: int) -> int:
        return image * (captions + 1) + caption

    pairs = [(i, other) for i in range(images) for other in range(images) if other != i]
    found = all(i in own for i, own in enumerate(rivals))
    text = [Comparison((at(i, i),), (at(i, k),)) for i, own in enumerate(rivals) for k in sorted(own) if k != i]
    return {
        "text": text if found else [],
        "image": [Comparison((at(k, k),), (at(i, k),)) for k, i in pairs],
        "image_corrected": [Comparison((at(k, k), at(i, captions)), (at(i, k), at(k, captions))) for k, i in pairs],
    }


def grouped(right: Mapping[str, bool]) -> dict[str, bool]:
    """All of `SCORES` from those of `comparisons`."""
    text, image, corrected = right["text"], right["image"], right["image_corrected"]
    group = {"group": text and image, "image_corrected": corrected, "group_corrected": text and corrected}
    return {"text": text, "image": image, **group}


def scores(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each score over all examples and over those of each tag, with Wilson's 95 % interval; fractions. n: examples."""
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        for group in dict.fromkeys(["all", *(f"{tag}: {row[tag]}" for tag in TAGS if row.get(tag))]):
            groups[group].append(row)
    table = []
    for group, members in groups.items():
        for name in (score for score in SCORES if score in members[0]):  # some need an unconditional error
            right = sum(row[name] for row in members)
            low, high = wilson(right, len(members))
            found = {"value": right / len(members), "ci_low": low, "ci_high": high, "n": len(members)}
            table.append({"group": group, "score": name, **found})
    return table


def _least_on_diagonal(errors: Float[Tensor, "_ _"]) -> bool:
    """Whether the diagonal entry of every row is its only minimum."""
    own = errors.diagonal()
    others = errors.masked_fill(torch.eye(*errors.shape, dtype=torch.bool, device=errors.device), torch.inf)
    return bool((own < others.amin(1)).all())
