"""What is said of scenes, checked against what their masks and depths show."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from diffcern.data import Questions, load_pairs, load_questions
from diffcern.data.scenes import scenes
from diffcern.data.scenes.asking import QUESTION_KINDS, ask, questions
from diffcern.data.scenes.geometry import Scene
from diffcern.data.scenes.language import (
    OPPOSITE,
    SWAPS,
    WORDS,
    Statement,
    caption,
    captions,
    counterpart,
    holds,
    name_of,
    negatives,
    statements,
)
from diffcern.data.scenes.layout import COLOURS
from diffcern.data.scenes.matching import pairs
from diffcern.data.scenes.render import MASK_NAMES, render
from diffcern.errors import UsageError

TEST = scenes("test")
SCENES = [TEST.scene(index) for index in range(100)]


class Shown:
    """What the mask and the depths of a scene say of its things whose shape no other thing has."""

    def __init__(self, scene: Scene) -> None:
        _, mask, depth = render(scene, 64)
        shapes = Counter(thing.shape for thing in scene.things)
        self.colours = {thing.shape: thing.colour for thing in scene.things if shapes[thing.shape] == 1}
        self.column: dict[str, float] = {}
        self.depth: dict[str, float] = {}
        self.pixels: dict[str, int] = {}
        for shape in self.colours:
            here = mask == MASK_NAMES.index(shape)
            self.pixels[shape] = int(here.sum())
            self.column[shape] = here.nonzero()[:, 1].float().mean().item()
            self.depth[shape] = depth[here].median().item()

    def says(self, first: str, relation: str, second: str) -> bool:
        if relation in ("left of", "right of"):
            return (self.column[first] < self.column[second]) == (relation == "left of")
        return (self.depth[first] < self.depth[second]) == (relation == "in front of")


def parse(text: str) -> tuple[tuple[str, str], str, tuple[str, str] | None]:
    """Names and relation of a caption, by its words alone."""
    words = [word for word in text.removeprefix("a scene with ").split() if word not in ("a", "an")]
    if len(words) == 2:
        return (words[0], words[1]), "", None
    return (words[0], words[1]), " ".join(words[2:-2]), (words[-2], words[-1])


# --- captions ----------------------------------------------------------------------------------------------


def test_captions_agree_with_masks_and_depths() -> None:
    said: Counter[str] = Counter()
    for scene in SCENES:
        shown = Shown(scene)
        things = {name_of(thing) for thing in scene.things}
        assert caption(scene) in captions(scene)
        for text in captions(scene):
            first, relation, second = parse(text)
            assert {first, second or first} <= things
            if relation in OPPOSITE and second and first[1] in shown.colours and second[1] in shown.colours:
                assert shown.says(first[1], relation, second[1]), f"{scene.id}: {text}"
                said[relation] += 1
            if first[1] in shown.colours:
                assert shown.pixels[first[1]] > 40, f"{scene.id}: {text}"
    assert set(said) == set(OPPOSITE)
    assert min(said.values()) > 70


def test_captions_read_well() -> None:
    assert Statement(("red", "cube"), "left of", ("orange", "ring")).text == "a red cube left of an orange ring"
    assert Statement(("orange", "sphere")).text == "an orange sphere"
    for scene in SCENES[:30]:
        for text in [*captions(scene), *negatives(scene)]:
            assert set(text.split()) <= set(WORDS)
    assert 35 <= len(WORDS) <= 50
    main = SCENES[0].things[0]
    alone = replace(SCENES[0], things=(main,))
    assert caption(alone) == Statement(name_of(main)).text
    assert captions(alone) == [caption(alone), f"a scene with {caption(alone)}"]


def test_a_hidden_thing_is_not_spoken_of() -> None:
    scene = SCENES[0]
    front = replace(scene.things[0], shape="cube", colour="red", x=0.0, z=5.0, size=2.0)
    behind = replace(front, shape="sphere", colour="blue", z=8.0, size=1.0)
    hidden = replace(scene, things=(front, behind))
    assert captions(hidden) == ["a red cube", "a scene with a red cube"]
    said = Statement(("blue", "sphere"), "behind", ("red", "cube"))
    assert holds(hidden, said) is None, "neither said nor denied"
    assert holds(hidden, Statement(("green", "sphere"))) is False
    moved = replace(scene, things=(front, replace(behind, x=2.5)))
    assert holds(moved, said) is True
    assert holds(moved, replace(said, relation="in front of")) is False
    assert holds(moved, replace(said, relation="right of")) is True
    assert holds(moved, replace(said, relation="left of")) is False


def test_what_is_within_the_margins_is_neither_said_nor_denied() -> None:
    left = replace(SCENES[0].things[0], shape="cone", colour="red", x=-1.5, z=6.0, size=1.0)
    right = replace(left, colour="blue", x=1.5, z=6.3)
    scene = replace(SCENES[0], things=(left, right))
    assert {said.relation for said in statements(scene)} == {"", "and", "left of", "right of"}
    assert holds(scene, Statement(("red", "cone"), "in front of", ("blue", "cone"))) is None


def test_negatives_are_false_by_the_mask() -> None:
    kinds: Counter[str] = Counter()
    for scene in SCENES:
        shown = Shown(scene)
        things = {name_of(thing) for thing in scene.things}
        for text in negatives(scene):
            first, relation, second = parse(text)
            kinds[relation] += 1
            if {first, second or first} <= things:
                assert second is not None
                if first[1] in shown.colours and second[1] in shown.colours:
                    assert not shown.says(first[1], relation, second[1]), f"{scene.id}: {text}"
    assert set(kinds) == {"", *OPPOSITE}


# --- counterparts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SWAPS)
def test_a_counterpart_has_the_other_caption(kind: str) -> None:
    found = 0
    for scene in SCENES[:60]:
        other = counterpart(scene, kind)
        if other is None:
            continue
        found += 1
        a, b = other.captions
        assert a in captions(scene)
        assert b in captions(other.scene)
        assert a not in captions(other.scene)
        assert b not in captions(scene)
        if kind == "relation":  # the same words, in another order
            assert Counter(word for word in a.split() if word not in ("a", "an")) == Counter(
                word for word in b.split() if word not in ("a", "an")
            )
        shown, shown_other = Shown(scene), Shown(other.scene)
        before, relation, second = parse(a)
        assert second is not None
        if kind == "attribute" and {before[1], second[1]} <= set(shown.colours):
            assert shown.colours[before[1]] == shown_other.colours[second[1]] == before[0]
            assert shown.colours[second[1]] == shown_other.colours[before[1]] == second[0]
            assert torch.equal(render(scene, 32)[1], render(other.scene, 32)[1]), "only colours are swapped"
        if kind == "relation" and {before[1], second[1]} <= set(shown.colours):
            assert shown.says(before[1], relation, second[1])
            assert shown_other.says(second[1], relation, before[1])
        change = (render(scene, 64)[0] - render(other.scene, 64)[0]).abs().max(0).values
        assert (change > 0.1).sum() > 40, "the pictures differ"
    assert found > 20


def test_pairs_of_a_split() -> None:
    made = pairs("test", count=21)
    kinds = [entry.tags["tag"] for entry in made.entries]
    assert Counter(kinds) == {"attribute": 11, "relation": 10}
    example = made[3]
    assert len(example.images) == len(example.captions) == 2
    row = TEST.ids.index(example.id.rpartition("-")[0])
    assert torch.equal(example.images[0], TEST[row].image)
    assert example.captions[0] in captions(TEST.scene(row))
    assert example.images[1].shape == (3, 64, 64)
    assert made.ids[:10] == pairs("test", count=10).ids
    with pytest.raises(UsageError, match=r"validation split of scenes makes \d{3} pairs, not 501"):
        pairs("validation", count=501)
    with pytest.raises(UsageError, match="at least 1 of the pairs"):
        pairs("test", count=0)


def test_pairs_by_name() -> None:
    made = load_pairs("embedded:scenes/validation", max_side=32)
    assert made.ids[0].startswith("scenes-validation-")
    assert made[0].images[1].shape == (3, 32, 32)
    assert len(made) == 200
    with pytest.raises(UsageError, match="scenes/validation"):
        load_pairs("embedded:scenes/val")


# --- questions ---------------------------------------------------------------------------------------------


def right(scene: Scene, shown: Shown, question: str, answer: str, kind: str) -> bool:
    """Whether the answer is right, from the words of the question and the picture's mask and depths."""
    words = question.removesuffix("?").split()
    if kind == "colour":
        return shown.colours[words[-1]] == answer
    if kind == "shape":
        return [thing.shape for thing in scene.things if thing.colour == words[-1]] == [answer]
    if kind == "count":
        return ["one", "two", "three", "four"].index(answer) + 1 == len(scene.things)
    first, second = words[3], words[-1]
    if first not in shown.colours or second not in shown.colours:
        return True  # two of a shape: the mask does not tell them apart
    relation = {"left": "left of", "right": "right of", "nearer": "in front of", "farther": "behind"}[answer]
    return shown.says(first, relation, second)


def test_answers_agree_with_masks_and_depths() -> None:
    asked: Counter[tuple[str, str]] = Counter()
    for scene in SCENES:
        shown = Shown(scene)
        for kind in QUESTION_KINDS:
            text = ask(scene, kind)
            if text is None:
                continue
            question, answer, choices = text
            assert answer in choices
            assert set(question.removesuffix("?").split()) | {answer} <= set(WORDS)
            assert right(scene, shown, question, answer, kind), f"{scene.id}: {question} {answer}"
            asked[kind, answer] += 1
    assert {answer for kind, answer in asked if kind == "colour"} == set(COLOURS)
    assert {answer for kind, answer in asked if kind == "count"} == {"one", "two", "three", "four"}


def test_neither_of_two_answers_is_the_safe_guess() -> None:
    """The main thing is mostly in front, yet asked about as the first or the second at the toss of a coin."""
    asked: Counter[str] = Counter()
    for index in range(300):
        scene = TEST.scene(index)
        asked.update(text[1] for kind in ("side", "distance") if (text := ask(scene, kind)))
    for a, b in (("left", "right"), ("nearer", "farther")):
        n = asked[a] + asked[b]
        assert n > 150
        assert abs(asked[a] - n / 2) < 1.5 * n**0.5, "3 standard deviations"


def test_questions_of_a_split() -> None:
    made = questions("test", count=60, seed=3)
    assert isinstance(made, Questions)
    kinds = Counter(asked.kind for asked in made.asked)
    assert set(kinds) == set(QUESTION_KINDS)
    assert max(kinds.values()) - min(kinds.values()) <= 3, "not every scene allows every kind"
    assert len({asked.image[1] for asked in made.asked}) == 60, "each about another scene"
    assert made.ids[:20] == questions("test", count=20, seed=3).ids
    assert made.ids != questions("test", count=60, seed=4).ids
    question = made[5]
    row = TEST.ids.index(question.id.rpartition("-")[0])
    assert torch.equal(question.image, TEST[row].image)
    with pytest.raises(UsageError, match="validation split of scenes makes 500 questions, not 501"):
        questions("validation", count=501)


def test_questions_by_name() -> None:
    made = load_questions("embedded:scenes/validation", max_side=32)
    assert len(made) == 500
    assert made[-1].image.shape == (3, 32, 32)
    with pytest.raises(UsageError, match="scenes/validation"):
        load_questions("embedded:scenes/val")
