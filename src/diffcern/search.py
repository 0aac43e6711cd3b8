"""What is asked of one image's canonical view, and how much may be spent on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffcern.errors import UsageError
from diffcern.hidden import CANDIDATES, COST
from diffcern.noise_levels import MOST
from diffcern.views import FAMILIES

START = 4  # draws before the first look at a race
FIRST = 4  # draws before the first look at a check
RESERVED = 2 * FIRST  # evaluations that races leave for it
USUAL = ("light", "turn")
INPAINT = "inpaint"
PAINTING = COST + START * (CANDIDATES + 1) + RESERVED  # evaluations that it takes to ask whether something hides


@dataclass(frozen=True)
class Search:
    """families: of `views.FAMILIES`, in order. budget: evaluations of the denoiser for an image, at most (in a stream
    that has changed, once more). draws: of a race, at most. low: where the most stretched candidate is looked at from,
    as a part of the times; a family may say later, and so does noise in the image (`Scale.level`). margin: nats, None
    for what the prior's clean images gain by the family (`clean_gains.py`), and z: standard errors, by which a view
    must be better than none; a noisy image's margin is wider. rounds: of refinement. jacobian: false leaves
    log |det J| out, as FOCAL does; its form has margin and z 0 too. inpaint: at the end, whether something hides a part
    of the view (`hidden.py`).

    Raises UsageError for numbers out of range, for families that there are not, for a budget that does not reach once
    around the candidates, and for `inpaint` without the Jacobian, where whatever is painted is likelier.
    """

    families: tuple[str, ...] = USUAL
    budget: int = 120
    draws: int = 16
    low: float = 0.1
    margin: float | None = None
    z: float = 1.5
    rounds: int = 0
    jacobian: bool = True
    inpaint: bool = False

    def __post_init__(self) -> None:
        if not self.names or set(self.families) - set(FAMILIES):
            raise UsageError(f"views are some of {', '.join(FAMILIES)}, not {', '.join(self.families) or 'none'}")
        if self.draws < START or self.rounds < 0 or (self.margin or 0) < 0 or self.z < 0 or not 0 <= self.low < 1:
            raise UsageError(
                f"draws are {START} or more, rounds, margin and z at least 0, low in [0, 1), not {self.draws}, "
                f"{self.rounds}, {self.margin}, {self.z}, {self.low}"
            )
        if self.inpaint and not self.jacobian:
            raise UsageError("what is painted is likelier by itself: give inpaint=false with jacobian=false")
        if self.budget < (least := MOST + RESERVED + self.once_around(self.families)):
            raise UsageError(
                f"a budget of {self.budget} evaluations does not reach around the candidates: "
                f"{', '.join(self.names)} need {least} or more"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """What is asked, as margins are known by: the families, and `INPAINT`."""
        return (*self.families, *[INPAINT] * self.inpaint)

    def once_around(self, families: Sequence[str]) -> int:
        """Evaluations that it takes to go once around the candidates of each, and of what may hide something."""
        return START * sum(FAMILIES[name].size + 2 for name in families) + PAINTING * self.inpaint
