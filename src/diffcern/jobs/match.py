"""Images matched with captions: a row for each example, and Winoground's scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from diffcern.errors import UsageError
from diffcern.fields import ARGUMENT, MaxSide, Spelling, View, help_of, parsed_numbers
from diffcern.jobs.base import CHECKED, Events, Row
from diffcern.jobs.rows import RowsJob, Work

OF_RACES = frozenset(("z", "risk", "start", "first", "shortlist", "shortlist_draws"))
OF_PRIORS = OF_RACES | {"draws", "strategy", "weighting", "norm", "rows", "view", "dtype", "compile", "seed", "stop"}


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Match(RowsJob):
    """Match images with captions: text, image and group scores.

    By how well each caption explains each image to a prior, or by how similar a predictor finds the two.
    """

    command = "match"
    lists = True

    pairs: Annotated[
        str,
        help_of("winoground:PATH, pairs:FILE.parquet with columns image and caption, or embedded:scenes"),
        ARGUMENT,
    ]
    prior: Annotated[str | None, help_of("a text-to-image prior: hf:OWNER/NAME or a folder")] = None
    predictor: Annotated[str | None, help_of("CLIP or SigLIP in its place: match by similarity, without draws")] = None
    draws: Annotated[int, help_of("per image and caption", ge=1)] = 100
    strategy: Annotated[str, help_of("how times are drawn")] = "stratified"
    weighting: Annotated[str, help_of("of the error over time")] = "eps"
    norm: Annotated[str, help_of("l2 or l1")] = "l2"
    stop: Annotated[Literal["", "race"], help_of("race: ask only about what comparisons need that are still open")] = ""
    z: Annotated[float, help_of("standard errors by which a comparison stands out, in a race", gt=0)] = 2.0
    risk: Annotated[
        float | None,
        help_of("that a comparison is ever settled wrongly, in a race: a rule in the place of z", gt=0, lt=1),
    ] = None
    start: Annotated[int, help_of("draws before the first look, in a race", ge=2)] = 4
    first: Annotated[
        tuple[float, float],
        BeforeValidator(parsed_numbers),
        help_of("the part of all times that a race asks about before the others: 0.4,1"),
        Spelling(text=str),
    ] = (0.0, 1.0)
    shortlist: Annotated[
        int | None,
        help_of(
            "captions that each image's own is compared with, the first by the gradient; all where there are fewer",
            ge=2,
        ),
    ] = None
    shortlist_draws: Annotated[int, help_of("differentiated, which rank all captions for the shortlist", ge=1)] = 8
    rows: Annotated[int, help_of("network rows at a time; fewer need less memory", ge=1)] = 64
    view: View = "centre"
    max_side: MaxSide = 4096

    def idle(self) -> tuple[frozenset[str], str]:
        if not self.predictor or self.prior:
            return (frozenset(), "") if self.stop else (OF_RACES, "only in a race: give --stop race too")
        return OF_PRIORS, "only with --prior; a predictor is asked once, in float32"

    def load(self, out: Path | str | None, events: Events) -> Work:
        from diffcern.data import load_pairs
        from diffcern.devices import device_named
        from diffcern.draws import check_draws
        from diffcern.fingerprints import fingerprint
        from diffcern.likelihood import check_norm
        from diffcern.priors import TextPrior
        from diffcern.racing import Rule
        from diffcern.run import columns
        from diffcern.run.digests import of_examples
        from diffcern.run.match import Shortlist, contrastive_rows, load_contrastive, match_rows
        from diffcern.run.models import load_models
        from diffcern.run.spec import parse_models
        from diffcern.weightings import weighting as weighting_named

        if bool(self.prior) == bool(self.predictor):
            raise UsageError("give --prior (a text-to-image prior) or --predictor (CLIP or SigLIP), one of the two")
        check_norm(self.norm)
        check_draws(self.strategy, self.draws, (0.0, 1.0))
        weighting_named(self.weighting)
        rule = Rule(self.z, self.start, self.risk, self.first) if self.stop else None
        if rule:
            rule.check(self.strategy, self.draws)
        shortlist = Shortlist(self.shortlist, self.shortlist_draws) if self.shortlist else None
        if shortlist and shortlist.draws > self.draws:
            raise UsageError(f"--shortlist-draws are some of {self.draws} draws, not {shortlist.draws}")
        asked = {"prior": self.prior, "dtype": self.dtype, "compile": self.compile}
        named = parse_models(self.named(prior=self.prior)) if self.prior else None
        data = load_pairs(self.pairs, max_side=self.max_side)
        settings: dict[str, Any] = {"pairs": self.pairs, "max_side": self.max_side}
        if named is None:
            assert self.predictor is not None
            reader = load_contrastive(self.predictor, data, allow_pickle=self.allow_pickle)
            reader = reader.to(device_named(self.device))
            fingerprints = {"predictor": fingerprint(reader), "captions": fingerprint(reader.model)}
            settings |= {"predictor": self.predictor, "fingerprints": fingerprints}
            matched = partial(contrastive_rows, data, reader)
        else:
            models = load_models(named, device_named(self.device))
            if not isinstance(models.prior, TextPrior):
                raise UsageError(
                    f"{self.prior} does not read captions: matching needs a text-to-image prior, such as "
                    "embedded:scenes-text"
                )
            options = {name: getattr(self, name) for name in ("draws", "strategy", "weighting", "norm", "view", "seed")}
            settings |= {**asked, **options, "fingerprints": models.fingerprints()}
            settings |= {"stop": self.stop, "z": self.z, "start": self.start} if rule else {}
            later = {"first": self.first != (0.0, 1.0), "risk": self.risk is not None}  # which races once lacked
            settings |= {name: getattr(self, name) for name, given in later.items() if rule and given}
            settings |= {"shortlist": asdict(shortlist)} if shortlist else {}
            how: dict[str, Any] = {"rows": self.rows, "rule": rule, "shortlist": shortlist}
            matched = partial(match_rows, data, models.prior, **options, **how)
        tags = {tag for entry in data.entries for tag in entry.tags}
        schema = columns.matched(named is not None, tags, shortlist is not None, rule is not None)
        return Work(
            "matching", settings, data.ids, lambda todo: matched(todo=todo), partial(of_examples, data), schema=schema
        )

    @staticmethod
    def scores(rows: Sequence[Row]) -> list[Row]:
        from diffcern.tasks.matching import scores

        return scores(rows)
