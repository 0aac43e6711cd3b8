"""How a bench lets an entry meet the images: afresh for each batch, or as a stream that its state is carried through.

    episodic          the state is `init()` for every batch
    reset-per-shift   carried through the images of one shift, in a seeded shuffle ("online" is the same)
    continual         carried on from shift to shift, as the specification orders them (Wang et al. 2022,
                      arXiv 2203.13591)
    mixed             carried through the images of all shifts in one seeded shuffle
    correlated        as reset-per-shift, with neighbours of one class: a Dirichlet deals the images of each class out
                      over the stream (Gong et al. 2022, arXiv 2208.05117; Yuan et al. 2023, arXiv 2303.13899)

Of a protocol that carries its state every record says at which place of the stream its image came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch

from diffcern.errors import UsageError
from diffcern.rng import generator

Protocol = Literal["episodic", "online", "reset-per-shift", "continual", "mixed", "correlated"]
PROTOCOLS = get_args(Protocol)
ACROSS = ("continual", "mixed")  # whose streams go through all shifts
Cell = tuple[str, int]  # shift, severity
Place = tuple[int, str, int]  # position of an image in the bench's order, shift, severity


def stream(
    protocol: Protocol,
    cells: Sequence[Cell],
    targets: Sequence[int],
    seed: int,
    concentration: float = 0.1,
) -> list[Place]:
    """The images of one stream, in order.

    cells: the shifts that it goes through, one but for `ACROSS`. targets: of the images in the bench's order, which is
    shuffled already. concentration: of the Dirichlet; the smaller, the longer the runs of one class. Raises UsageError
    for correlated images without labels, and a concentration that is not above 0.
    """
    positions = list(range(len(targets)))
    if protocol == "correlated":
        positions = correlated(targets, seed, concentration)
    places = [(position, shift, severity) for shift, severity in cells for position in positions]
    if protocol == "mixed":
        order = torch.randperm(len(places), generator=generator(seed, "mixed")).tolist()
        places = [places[i] for i in order]
    return places


def correlated(targets: Sequence[int], seed: int, concentration: float) -> list[int]:
    """Positions in an order in which classes come in runs: with K classes the stream has K slots, and the images of
    each class are split among them by shares drawn from a Dirichlet."""
    if not concentration > 0:
        raise UsageError(f"concentration is above 0, not {concentration}")
    if any(target < 0 for target in targets):
        raise UsageError(
            "a correlated stream goes by the classes of its images, and some have none: choose another protocol"
        )
    numbers = np.random.default_rng(generator(seed, "correlated").initial_seed())
    classes = sorted(set(targets))
    slots: list[list[int]] = [[] for _ in classes]
    for own in classes:
        members = [position for position, target in enumerate(targets) if target == own]
        shares = numbers.dirichlet([concentration] * len(slots))
        ends = (shares.cumsum() * len(members)).round().astype(int)
        ends[-1] = len(members)
        for slot, first, last in zip(slots, [0, *ends[:-1]], ends, strict=True):
            slot += members[first:last]
    return [position for slot in slots for position in slot]
