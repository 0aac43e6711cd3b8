"""Questions about scenes, each with the one answer that is beyond doubt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch

from diffcern.data.questions import Asked, Questions
from diffcern.data.scenes import SIDE, scenes
from diffcern.data.scenes.geometry import Scene, Thing
from diffcern.data.scenes.language import NUMBERS, clearly_seen, relations
from diffcern.data.scenes.layout import COLOURS, Dice
from diffcern.data.scenes.shapes import CLASSES
from diffcern.errors import UsageError
from diffcern.rng import generator

COUNT = 500
SIDES = {"left of": "left", "right of": "right"}
DISTANCES = {"in front of": "nearer", "behind": "farther"}

Text = tuple[str, str, tuple[str, ...]]  # question, answer, choices


def questions(split: str, count: int = COUNT, seed: int = 0, side: int = SIDE) -> Questions:
    """`count` questions, each about another scene of the split, of all `QUESTION_KINDS` as equally as the scenes allow.

    seed: which scenes are asked about, and what. Raises `UsageError` for an unknown split, and for fewer than 1 and
    more than the split makes.
    """
    source = scenes(split, side)
    if count < 1:
        raise UsageError(f"ask for at least 1 of the questions of scenes, not {count}.")
    asked: list[Asked] = []
    kinds = Counter(dict.fromkeys(QUESTION_KINDS, 0))
    for row in torch.randperm(len(source), generator=generator(seed, "questions", split)).tolist():
        scene = source.scene(row)
        for kind in sorted(QUESTION_KINDS, key=lambda kind: kinds[kind]):
            text = ask(scene, kind, seed)
            if text is not None:
                kinds[kind] += 1
                asked.append(Asked(f"{scene.id}-{kind}", (source, row), *text, kind))
                break
        if len(asked) == count:
            break
    if len(asked) < count:
        raise UsageError(f"the {split} split of scenes makes {len(asked)} questions, not {count}.")
    return Questions(source.name, asked)


def ask(scene: Scene, kind: str, seed: int = 0) -> Text | None:
    """A question of one of `QUESTION_KINDS`, its answer and its choices; None where no scene leaves it beyond doubt."""
    return QUESTION_KINDS[kind](scene, Dice(generator(seed, "question", kind, scene.id)))


def colour(scene: Scene, dice: Dice) -> Text | None:
    """Of a thing whose shape no other has."""
    shapes = [thing.shape for thing in scene.things]
    options = [thing for thing in _seen(scene) if shapes.count(thing.shape) == 1]
    if not options:
        return None
    thing = dice.choice(options)
    return f"what colour is the {thing.shape}?", thing.colour, tuple(COLOURS)


def shape(scene: Scene, dice: Dice) -> Text | None:
    """Of a thing whose colour no other has."""
    colours = [thing.colour for thing in scene.things]
    options = [thing for thing in _seen(scene) if colours.count(thing.colour) == 1]
    if not options:
        return None
    thing = dice.choice(options)
    return f"which shape is {thing.colour}?", thing.shape, CLASSES


def number(scene: Scene, dice: Dice) -> Text | None:
    """Of all things, where each is clearly seen."""
    if not all(clearly_seen(scene)):
        return None
    return "how many things are there?", NUMBERS[len(scene.things) - 1], NUMBERS


def sides(scene: Scene, dice: Dice) -> Text | None:
    """Which of two things is to the left."""
    return _between(scene, dice, SIDES, "left or right of")


def distance(scene: Scene, dice: Dice) -> Text | None:
    """Which of two things is nearer."""
    return _between(scene, dice, DISTANCES, "nearer or farther than")


QUESTION_KINDS: dict[str, Callable[[Scene, Dice], Text | None]] = {
    "colour": colour,
    "shape": shape,
    "count": number,
    "side": sides,
    "distance": distance,
}


def _between(scene: Scene, dice: Dice, answers: dict[str, str], alternatives: str) -> Text | None:
    seen = _seen(scene)
    options = [
        (a, b, answers[relation])
        for a in seen
        for b in seen
        if a != b
        for relation in relations(scene, a, b)
        if relation in answers
    ]
    if not options:
        return None
    a, b, answer = dice.choice(options)
    text = f"is the {a.colour} {a.shape} {alternatives} the {b.colour} {b.shape}?"
    return text, answer, tuple(answers.values())


def _seen(scene: Scene) -> list[Thing]:
    return [thing for thing, clear in zip(scene.things, clearly_seen(scene), strict=True) if clear]
