"""What can be said of a scene: captions that are true of it, others that are false, and its counterparts.

A thing is named by its colour and its shape, which no two share. It is spoken of where it is clearly seen, and a
relation where there is no doubt of it: what lies within the margins is neither said nor denied.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from diffcern.data.scenes.geometry import Scene, Thing, fits, project, radius
from diffcern.data.scenes.layout import COLOURS, SEED, Dice
from diffcern.data.scenes.render import trace
from diffcern.data.scenes.shapes import CLASSES, SHAPES
from diffcern.rng import generator

RAYS = 64  # per side, for what is seen
CLEAR_RAYS, CLEAR_SHARE = 50, 0.6  # a thing is clearly seen by so many of the 4,096, and by so much of itself
ASIDE = 0.25  # between centres, of things left and right of each other: in metres, and in the frame of [-1, 1]
APART = 0.8  # metres between things in front of and behind each other, and more if they are larger
OPPOSITE = {"left of": "right of", "right of": "left of", "in front of": "behind", "behind": "in front of"}
SWAPS = ("attribute", "relation")  # what a counterpart swaps
NUMBERS = ("one", "two", "three", "four")

ASKING = "what which colour shape is are the how many things there or nearer farther than"
TEXT = " ".join([*COLOURS, *CLASSES, *NUMBERS, *OPPOSITE, "a an and scene with", ASKING])
WORDS = tuple(sorted(set(TEXT.split())))  # all of captions, questions and answers

Name = tuple[str, str]  # colour and shape


@dataclass(frozen=True)
class Statement:
    """One thing, or two; relation: one of `OPPOSITE`, or "and", which only says that both are there."""

    first: Name
    relation: str = ""
    second: Name | None = None

    @property
    def text(self) -> str:
        """As in "a red cube left of a blue sphere"."""
        if self.second is None:
            return _named(self.first)
        return f"{_named(self.first)} {self.relation} {_named(self.second)}"


@dataclass(frozen=True)
class Counterpart:
    """A scene with something swapped: captions[0] is true of the original alone, captions[1] of this one alone."""

    scene: Scene
    captions: tuple[str, str]


def caption(scene: Scene) -> str:
    """A true caption of the main thing: beside another one where a relation is beyond doubt, else by itself."""
    return _caption(scene).text


def captions(scene: Scene) -> list[str]:
    """All true captions: of every clearly seen thing, of every two of them, and their relations both ways round."""
    texts = [statement.text for statement in statements(scene)]
    return [*texts, *(f"a scene with {text}" for text in texts)]


def negatives(scene: Scene) -> list[str]:
    """False captions, each one swap from `caption(scene)`: the colours of its things, or their places.

    Of a thing by itself, the colour or the shape is another one. Empty where a swap leaves the caption true.
    """
    said = _caption(scene)
    if said.second is not None:
        swaps = [swapped(said, kind) for kind in SWAPS]
    else:
        dice = Dice(generator(SEED, "negatives", scene.id))
        colour, shape = said.first
        swaps = [
            Statement((dice.choice([other for other in COLOURS if other != colour]), shape)),
            Statement((colour, dice.choice([other for other in CLASSES if other != shape]))),
        ]
    return [swap.text for swap in swaps if holds(scene, swap) is False]


def statements(scene: Scene) -> list[Statement]:
    """All that is certain of the scene, the main thing first."""
    seen = [thing for thing, clear in zip(scene.things, clearly_seen(scene), strict=True) if clear]
    found = [Statement(name_of(thing)) for thing in seen]
    for a, b in itertools.permutations(seen, 2):
        found += [Statement(name_of(a), relation, name_of(b)) for relation in ("and", *relations(scene, a, b))]
    return found


def holds(scene: Scene, statement: Statement) -> bool | None:
    """Whether the statement is true of the scene; None where that is in doubt."""
    named = {name_of(thing): k for k, thing in enumerate(scene.things)}
    names = [statement.first] if statement.second is None else [statement.first, statement.second]
    if not all(name in named for name in names):
        return False
    if not all(clearly_seen(scene)[named[name]] for name in names):
        return None
    if statement.relation not in OPPOSITE:
        return True
    certain = relations(scene, *(scene.things[named[name]] for name in names))
    return True if statement.relation in certain else False if OPPOSITE[statement.relation] in certain else None


def swapped(statement: Statement, kind: str) -> Statement:
    """The statement about two things with their colours ("attribute") or their places ("relation") swapped."""
    assert statement.second is not None
    (colour, shape), (colour2, shape2) = statement.first, statement.second
    if kind == "attribute":
        return Statement((colour2, shape), statement.relation, (colour, shape2))
    return Statement(statement.second, statement.relation, statement.first)


def counterpart(scene: Scene, kind: str) -> Counterpart | None:
    """The scene with the colours ("attribute") or the places ("relation") of two things swapped, with captions.

    A size belongs to a place: what comes to the front is as large as what was there. None where no two things can
    be swapped such that either caption is certainly true of one scene and certainly false of the other.
    """
    places = {name_of(thing): k for k, thing in enumerate(scene.things)}
    candidates = [s for s in statements(scene) if s.relation in OPPOSITE or (s.relation and kind == "attribute")]
    order = generator(SEED, "counterpart", kind, scene.id)
    for said in _shuffled(candidates, Dice(order)):
        assert said.second is not None
        i, j = places[said.first], places[said.second]
        other = _swap(scene, i, j, kind)
        if other is None:
            continue
        denied = swapped(said, kind)
        if holds(scene, denied) is False and holds(other, denied) is True and holds(other, said) is False:
            return Counterpart(other, (said.text, denied.text))
    return None


def relations(scene: Scene, a: Thing, b: Thing) -> tuple[str, ...]:
    """The relations of a to b that are beyond doubt: at most one sideways and one in depth."""
    found = []
    seen, stands = _centre(scene, b) - _centre(scene, a), b.x - a.x
    if min(abs(seen), abs(stands)) >= ASIDE and (seen > 0) == (stands > 0):
        found.append("left of" if seen > 0 else "right of")
    apart = b.z - a.z
    if abs(apart) >= max(APART, radius(a) + radius(b)):
        found.append("in front of" if apart > 0 else "behind")
    return tuple(found)


@lru_cache(maxsize=1024)
def clearly_seen(scene: Scene) -> tuple[bool, ...]:
    """Of each thing, whether enough of it is seen to speak of it."""
    with np.errstate(all="ignore"):  # as in `render`
        found = trace(scene, RAYS)
    counts = np.bincount(found.labels.ravel(), minlength=2 + len(scene.things))[2:]
    return tuple(
        bool(count >= CLEAR_RAYS and count >= CLEAR_SHARE * alone)
        for count, alone in zip(counts, found.alone, strict=True)
    )


def name_of(thing: Thing) -> Name:
    return thing.colour, thing.shape


def _named(name: Name) -> str:
    article = "an" if name[0][0] in "aeiou" else "a"
    return f"{article} {name[0]} {name[1]}"


def _caption(scene: Scene) -> Statement:
    main = name_of(scene.things[0])
    related = [said for said in statements(scene) if said.first == main and said.relation in OPPOSITE]
    return Dice(generator(SEED, "caption", scene.id)).choice(related) if related else Statement(main)


def _centre(scene: Scene, thing: Thing) -> float:
    """How far to the right in the frame the middle of the thing is seen."""
    return project(scene.camera, thing.x, SHAPES[thing.shape].height * thing.size / 2, thing.z)[0]


def _shuffled(said: list[Statement], dice: Dice) -> Iterator[Statement]:
    keys = [dice.between(0, 1) for _ in said]
    return (statement for _, statement in sorted(zip(keys, said, strict=True), key=lambda pair: pair[0]))


def _swap(scene: Scene, i: int, j: int, kind: str) -> Scene | None:
    """None where a scene of this world could not look so, or would be the same."""
    a, b = scene.things[i], scene.things[j]
    things = list(scene.things)
    if kind == "attribute":
        if a.colour == b.colour or a.shape == b.shape:
            return None
        things[i], things[j] = _painted(a, b), _painted(b, a)
    else:
        things[i] = replace(b, x=a.x, z=a.z, size=a.size)
        things[j] = replace(a, x=b.x, z=b.z, size=b.size)
    if len({name_of(thing) for thing in things}) < len(things) or not fits(scene.camera, things):
        return None
    return replace(scene, id=f"{scene.id}-{kind}", things=tuple(things))


def _painted(thing: Thing, like: Thing) -> Thing:
    """The thing with the colours of another, in its own pattern."""
    texture = replace(thing.texture, second=like.texture.second)
    return replace(thing, colour=like.colour, rgb=like.rgb, texture=texture)
