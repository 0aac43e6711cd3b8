import torch

from diffcern.rng import generator


def numbers(*key):
    return torch.rand(4, generator=generator(*key))


def test_same_key_same_numbers():
    assert torch.equal(numbers(0, "a", 1), numbers(0, "a", 1))


def test_seed_and_every_part_of_the_key_matter():
    base = numbers(0, "a", 1)
    for other in [(1, "a", 1), (0, "b", 1), (0, "a", 2)]:
        assert not torch.equal(base, numbers(*other))


def test_parts_are_joined_unambiguously():
    assert not torch.equal(numbers(0, "a", "bc"), numbers(0, "ab", "c"))
