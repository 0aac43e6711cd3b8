"""Whether this machine computes what it should: questions with known answers, to the embedded prior of digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from diffcern.data import load_dataset
from diffcern.draws import draw
from diffcern.errors import first_line
from diffcern.health import Check
from diffcern.likelihood import score
from diffcern.priors import Prior, load_prior
from diffcern.sampling import purify
from diffcern.types import Latents
from diffcern.watching import doing

IMAGES = 4
START, STEPS = 100, 10  # of a thousand timesteps: little noise, which comes off again
CLOSE = 0.15  # of latents in [-1, 1], root mean square; a half of the noise, 0.31, that was added at `START`
SAME = 1e-4  # a batch sums in another order than one image does: some fp32 roundings of errors near 1


class Digits:
    """Some images with known answers, and the prior that is asked about them."""

    def __init__(self, device: torch.device) -> None:
        data = load_dataset("embedded:digits/validation")
        samples = [data[index] for index in range(IMAGES)]
        self.ids, self.targets = [sample.id for sample in samples], [sample.target for sample in samples]
        self.prior: Prior = load_prior("embedded:digits", device=device)
        self.latents: Latents = self.prior.latents(torch.stack([sample.image for sample in samples]).to(device))

    def errors(self, rows: slice, draws: int) -> torch.Tensor:
        """Of each image under each digit, `[images, 10]`."""
        latents, ids = self.latents[rows], self.ids[rows]
        how = {"seed": 0, "num_timesteps": self.prior.num_timesteps}
        asked = draw("stratified", draws, latents, ids, **how)  # type: ignore[arg-type]
        return score(self.prior, latents, self.prior.hypotheses(), asked, weighting="x0").mean

    def answers(self) -> tuple[bool, str]:
        found = self.errors(slice(None), 12).argmin(1).tolist()
        names = [int(self.prior.class_names[place]) for place in found]
        return names == self.targets, f"{', '.join(map(str, names))} for {', '.join(map(str, self.targets))}"

    def comes_back(self) -> tuple[bool, str]:
        made = purify(self.prior, self.latents, self.ids, start=START, steps=STEPS, solver="ddim")
        far = (made - self.latents).square().mean().sqrt().item()
        return far < CLOSE, f"{far:.3f} away, {CLOSE} allowed"

    def same_alone(self) -> tuple[bool, str]:
        together, alone = self.errors(slice(None), 2)[:1], self.errors(slice(0, 1), 2)
        far = ((together - alone).abs() / together).max().item()
        return far < SAME, f"{far:.1g} apart, {SAME:g} allowed"


QUESTIONS: dict[str, Callable[[Digits], tuple[bool, str]]] = {
    "the prior knows digits": Digits.answers,
    "noise comes off again": Digits.comes_back,
    "alone as in a batch": Digits.same_alone,
}


def self_test(device: torch.device) -> Iterator[Check]:
    """Some seconds. What is raised on the way is a failed check, and the others follow."""
    with doing(f"asking the embedded prior on {device}"):
        try:
            digits = Digits(device)
        except Exception as error:  # whatever is broken here
            yield Check("the embedded models load", False, first_line(error))
            return
        for question, ask in QUESTIONS.items():
            try:
                yield Check(question, *ask(digits))
            except Exception as error:
                yield Check(question, False, first_line(error))
