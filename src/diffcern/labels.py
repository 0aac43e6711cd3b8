"""Names for classes that people can read and that no two classes share, and their WordNet ids where known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from diffcern.errors import UsageError

WORDNET_ID = re.compile(r"n\d{8}")
WORDNET_SUFFIX = re.compile(r" \(n\d{8}\)$")
IDENTIFIED = re.compile(r" \((n\d{8}|\d+)\)$")  # what tells classes of one name apart, see `unique`
BACKGROUND = ("background", "dummy")  # as `normal` has it, before ImageNet's classes in heads of 1,001


class Labels(NamedTuple):
    """One name per class, all different; ids are WordNet's ("n01440764"), None where unknown."""

    names: tuple[str, ...]
    ids: tuple[str, ...] | None = None


def numbered(count: int) -> Labels:
    """Of outputs that are no classes."""
    return Labels(tuple(str(index) for index in range(count)))


def label_space(names: Sequence[str]) -> Labels:
    """The labels that a model lists, in its order.

    ImageNet-1k's list goes by many spellings ("tench, Tinca tinca"; "crane bird"): whichever it is, the result is
    `imagenet_labels()`, so that models from different libraries meet; likewise behind a background class, whose id is
    its name. A list of WordNet ids of its classes becomes their names. Any other stays as it is, except that a name
    that stands twice gets its index: "crane (134)".
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
    if len(names) == 1001 and normal(names[0]) in BACKGROUND:  # as TensorFlow's models have it
        rest = label_space(names[1:])
        if rest.ids:
            return Labels((names[0], *rest.names), (names[0], *rest.ids))
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


@cache
def _identified() -> dict[str, str]:
    """WordNet ids by the names of `imagenet_labels`."""
    names, ids = imagenet_labels()
    assert ids is not None
    return dict(zip(names, ids, strict=True))


def imagenet_ids(names: Sequence[str]) -> tuple[str, ...] | None:
    """The WordNet ids of names that are all ImageNet-1k's, as `imagenet_labels` has them; None where one is not."""
    if any(name.isdecimal() for name in names):  # known without what is slow to import
        return None
    known = _identified()
    return tuple(known[name] for name in names) if all(name in known for name in names) else None


@cache
def _torchvision_names() -> dict[str, str]:
    """torchvision's name of each ImageNet class, by WordNet id: "crane bird", "maillot tank suit"."""
    from torchvision.models import ResNet18_Weights  # slow to import, and only needed here

    return dict(zip(imagenet_labels().ids or (), ResNet18_Weights.IMAGENET1K_V1.meta["categories"], strict=True))


@cache
def _synsets() -> Any:
    """timm's table of WordNet's words, which takes 20 ms to read."""
    from timm.data import ImageNetInfo  # slow to import, and only needed here

    return ImageNetInfo()


def synonyms_of(identity: str) -> tuple[str, ...]:
    """What a class of that WordNet id may be called: all of WordNet's synonyms together and one by one, and as
    torchvision calls it; () for an id of no image class."""
    try:
        together = str(_synsets().label_name_to_description(identity, detailed=False))
    except KeyError:
        return ()
    return tuple(filter(None, (together, *together.split(", "), _torchvision_names().get(identity))))


def normal(name: str) -> str:
    """A name in one spelling: no capitals, no underscores, single spaces."""
    return " ".join(name.replace("_", " ").casefold().split())


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
            raise UsageError(
                f"labels are different names, at least one; given twice: {', '.join(twice) or 'none'}"
                + (
                    ". A WordNet id tells classes of one name apart, as n02012849 the crane that is a bird"
                    if twice
                    else ""
                )
            )
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
    labels = None if labels is None else readable(labels)
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
    texts = [WORDNET_SUFFIX.sub("", label) for label in labels]
    return Vocabulary(
        tuple(labels), tuple(tuple(template.replace("{}", text) for template in templates) for text in texts)
    )


def readable(labels: Wanted) -> Wanted:
    """The labels, with names in the place of WordNet ids of ImageNet's classes; ImageNet's whole list, in whichever
    spelling, as `imagenet_labels` has it, so that no name stands twice."""
    if isinstance(labels, Mapping):
        return {_readable(name): sentences for name, sentences in labels.items()}
    space = label_space(labels)
    return list(space.names if space.ids else map(_readable, labels))


def _readable(label: str) -> str:
    if not WORDNET_ID.fullmatch(label):
        return label
    return {identity: name for name, identity in _identified().items()}.get(label, label)
