"""Names for classes that people can read and that no two classes share, and their WordNet ids where known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from diffcern.errors import UsageError

WORDNET_ID = re.compile(r"n\d{8}")


class Labels(NamedTuple):
    """One name per class, all different; ids are WordNet's ("n01440764"), None where unknown."""

    names: tuple[str, ...]
    ids: tuple[str, ...] | None = None


def label_space(names: Sequence[str]) -> Labels:
    """The labels that a model lists, in its order.

    ImageNet-1k's list goes by many spellings ("tench, Tinca tinca"; "crane bird"): whichever it is, the result is
    `imagenet_labels()`, so that models from different libraries meet. A list of WordNet ids of its classes becomes
    their names. Any other stays as it is, except that a name that stands twice gets its index: "crane (134)".
    """
    if names and all(WORDNET_ID.fullmatch(name) for name in names):
        known = dict(zip(*reversed(imagenet_labels()), strict=True))
        if len(set(names)) == len(names) and known.keys() >= set(names):
            return Labels(tuple(known[name] for name in names), tuple(names))
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


TEMPLATE = "a photo of a {}."
Wanted = Sequence[str] | Mapping[str, Sequence[str]]  # labels, or the sentences that stand for each


@dataclass(frozen=True)
class Vocabulary:
    """What a model that reads text tells apart: labels, and for each the sentences that stand for it.

    Raises UsageError for no labels, a label given twice or without a sentence, and for empty labels and sentences.
    """

    labels: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if not self.labels or twice:
            raise UsageError(f"labels are different names, at least one; given twice: {', '.join(twice) or 'none'}")
        silent = [label for label, own in zip(self.labels, self.sentences, strict=True) if not own]
        if silent:
            raise UsageError(f"every label needs a sentence; without one: {', '.join(silent)}")
        if not all(text.strip() for text in (*self.labels, *self.prompts)):
            raise UsageError("a label or a sentence is empty: leave it out, or say what it stands for")

    @property
    def prompts(self) -> list[str]:
        """All sentences, label by label."""
        return [sentence for own in self.sentences for sentence in own]

    @property
    def owners(self) -> list[int]:
        """The label of each prompt, by index."""
        return [k for k, own in enumerate(self.sentences) for _ in own]


def vocabulary_of(labels: Wanted | None, templates: Sequence[str] | None) -> Vocabulary | None:
    """The labels in the templates, or with the sentences that they come with; None where no labels are given.

    Raises UsageError as `Vocabulary` does, for one string in the place of a list, for a template without {}, and for
    templates without labels or beside sentences.
    """
    if isinstance(labels, str) or isinstance(templates, str):
        raise UsageError("labels and templates are lists of names and sentences, not one string")
    if labels is None or isinstance(labels, Mapping):
        if templates is not None:
            raise UsageError("templates are put around labels: give labels, and no sentences of their own")
        if labels is None:
            return None
        return Vocabulary(tuple(labels), tuple(tuple(own) for own in labels.values()))
    templates = (TEMPLATE,) if templates is None else templates
    without = [template for template in templates if "{}" not in template]
    if not templates or without:
        raise UsageError(f"templates are sentences with {{}} where the label goes; without it: {without}")
    return Vocabulary(
        tuple(labels), tuple(tuple(template.replace("{}", label) for template in templates) for label in labels)
    )
