import hashlib

import torch

from diffcern.rng import generator, noise_like


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


def test_the_stream_is_the_one_that_records_were_made_with():
    """63 bits of BLAKE2b over seed and key, little-endian, the parts joined by ASCII's unit separator."""
    digest = hashlib.blake2b(b"7\x1fimage\x1f1", digest_size=8).digest()
    number = sum(byte << 8 * place for place, byte in enumerate(digest))
    assert generator(7, "image", 1).initial_seed() == number >> 1


def test_noise_is_of_each_samples_own_generator():
    latents = torch.zeros(2, 3, 4)
    noise = noise_like(latents, [generator(0, id) for id in "ab"])
    for row, id in zip(noise, "ab", strict=True):
        assert torch.equal(row, torch.randn(3, 4, generator=generator(0, id)))
