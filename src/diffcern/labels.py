"""Names for classes that people can read and that no two classes share, and their WordNet ids where known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from diffcern.errors import UsageError


class Labels(NamedTuple):
    """One name per class, all different; ids are WordNet's ("n01440764"), None where unknown."""

    names: tuple[str, ...]
    ids: tuple[str, ...] | None = None


def label_space(names: Sequence[str]) -> Labels:
    """The labels that a model lists, in its order.

    ImageNet-1k's list goes by many spellings ("tench, Tinca tinca"; "crane bird"): whichever it is, the result is
    `imagenet_labels()`, so that models from different libraries meet. Any other list stays as it is, except that a
    name that stands twice gets its index: "crane (134)".
    """
    if len(names) == 1000:
        imagenet = imagenet_labels()
        pairs = zip(names, imagenet.names, strict=True)
        if sum(_first(ours) == _first(theirs) for ours, theirs in pairs) >= 950:
            return imagenet
    return Labels(unique(names, [str(index) for index in range(len(names))]))


@cache
def imagenet_labels(subset: str = "imagenet-1k") -> Labels:
    """An ImageNet label space as timm knows it, in the usual order.

    A name is the first of WordNet's synonyms ("tench"); all of them where two classes share the first ("maillot",
    "maillot, tank suit"); and with the id where that does not tell them apart: "crane (n02012849)", the bird.
    """
    from timm.data import ImageNetInfo  # slow to import, and only needed here

    info = ImageNetInfo(subset)
    ids = tuple(info.label_names())
    synonyms = info.label_descriptions()
    first = [name.split(", ")[0] for name in synonyms]
    shared = _repeated(first)
    return Labels(unique([s if f in shared else f for f, s in zip(first, synonyms, strict=True)], ids), ids)


def unique(names: Sequence[str], ids: Sequence[str]) -> tuple[str, ...]:
    """The names, those that stand more than once followed by their id in brackets."""
    repeated = _repeated(names)
    return tuple(f"{name} ({id_})" if name in repeated else name for name, id_ in zip(names, ids, strict=True))


def _repeated(names: Sequence[str]) -> set[str]:
    return {name for name, count in Counter(names).items() if count > 1}


def _first(name: str) -> str:
    """A name's first synonym, without what tells it apart, in one spelling."""
    return name.split(", ")[0].split(" (")[0].replace("_", " ").casefold()


@dataclass(frozen=True)
class Vocabulary:
    """What an open-vocabulary model tells apart: labels, and the sentences that each is put into in the place of {}.

    Raises UsageError for no labels, a label given twice, no templates, or a template without {}.
    """

    labels: tuple[str, ...]
    templates: tuple[str, ...] = ("a photo of a {}.",)

    def __post_init__(self) -> None:
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if not self.labels or twice:
            raise UsageError(f"labels are different names, at least one; given twice: {', '.join(twice) or 'none'}")
        without = [template for template in self.templates if "{}" not in template]
        if not self.templates or without:
            raise UsageError(f"templates are sentences with {{}} where the label goes; without it: {without}")

    def prompts(self) -> list[str]:
        """Every label in every template, label by label."""
        return [template.replace("{}", label) for label in self.labels for template in self.templates]


def vocabulary_of(labels: Sequence[str] | None, templates: Sequence[str] | None) -> Vocabulary | None:
    """None where no labels are given. Raises UsageError as `Vocabulary` does, and for one string or templates alone."""
    if isinstance(labels, str) or isinstance(templates, str):
        raise UsageError("labels and templates are lists of names and sentences, not one string")
    if labels is None:
        if templates is not None:
            raise UsageError("templates are put around labels: give labels too")
        return None
    return Vocabulary(tuple(labels), *([] if templates is None else [tuple(templates)]))
