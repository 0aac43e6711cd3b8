"""Images of two and three digits: balanced classes, writers of one split, the same whoever asks."""

from collections import Counter

import pytest
import torch
from sklearn.datasets import load_digits

from diffcern.data import digits, load_dataset
from diffcern.data.digit_groups import NAMES, PLACES, SIDE, SPLITS, digit_groups
from diffcern.errors import UsageError


@pytest.mark.parametrize("name", NAMES)
def test_classes_come_equally_often_and_names_are_the_digits(name):
    data, (group, split) = load_dataset(f"embedded:{name}"), NAMES[name]
    assert len(data) == len(data.ids) == len(set(data.ids)) == SPLITS[group][split]
    assert len(data.class_names) == 10 ** len(PLACES[group])
    assert set(Counter(data.targets).values()) == {len(data) // len(data.class_names)}
    assert data.class_names[7] == "7".rjust(len(PLACES[group]), "0")


@pytest.mark.parametrize("name", [f"{group}/{split}" for group in SPLITS for split in digits.SPLITS])
def test_every_digit_is_one_of_its_split(name):
    """And of the class that the name of the image's class has in that place; elsewhere nothing is drawn."""
    data, (group, split) = load_dataset(f"embedded:{name}"), NAMES[name]
    table = load_digits()
    rows = digits.digits(split).rows
    known = {(table.images[row] / 16).tobytes(): int(table.target[row]) for row in rows}
    for index in range(0, len(data), len(data) // 20):
        sample = data[index]
        assert torch.equal(sample.image, data[index].image)
        rest = sample.image[0].clone()
        for digit, (top, left) in zip(data.class_names[sample.target], PLACES[group], strict=True):
            piece = sample.image[0, top : top + SIDE, left : left + SIDE]
            assert known[piece.double().numpy().tobytes()] == int(digit)
            rest[top : top + SIDE, left : left + SIDE] = 0
        assert not rest.any()


def test_what_there_is_not():
    with pytest.raises(UsageError, match="digit-triples"):
        digit_groups("digit-quadruples", "test")
    with pytest.raises(UsageError, match="validation"):
        digit_groups("digit-pairs", "dev")
    with pytest.raises(UsageError, match="digit-pairs"):
        load_dataset("embedded:digit-pair")
