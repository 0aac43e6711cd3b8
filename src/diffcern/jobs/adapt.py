"""A predictor adapted to images, or asked through a method in another way: a row each, before and after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic.dataclasses import dataclass

from diffcern.errors import UsageError
from diffcern.fields import (
    MODEL,
    AbstainBelow,
    PredictorName,
    Spelling,
    TaskOption,
    TrustRemoteCode,
    help_of,
)
from diffcern.jobs.base import CHECKED, Events, Row
from diffcern.jobs.images import Asked, OverImages
from diffcern.jobs.rows import Work
from diffcern.jobs.sinks import in_parts
from diffcern.kinds import KINDS

if TYPE_CHECKING:
    from diffcern.methods import Method


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Adapt(OverImages):
    """Adapt a predictor to each image by generative feedback and predict, before and after.

    Segmentation and depth write their maps into the folder named like the table without its suffix.
    """

    command = "adapt"

    predictor: PredictorName
    prior: Annotated[str | None, help_of(f"{MODEL}; not for source, tent, bn-adapt")] = None
    task: TaskOption = "classification"
    method: Annotated[str, help_of("see `diffcern list methods`")] = "diffusion-tta"
    online: Annotated[bool, help_of("carry on from image to image"), Spelling(("--online/--episodic",))] = False
    batch_size: Annotated[int, help_of("images at a time, where a method answers several", ge=1)] = 1
    shuffle: Annotated[bool, help_of("the images in a random order, where the order matters")] = False
    trust_remote_code: TrustRemoteCode = False
    abstain_below: AbstainBelow = None

    def load(self, out: Path | str | None, events: Events) -> Work:
        from diffcern.files import check_apart
        from diffcern.run import columns
        from diffcern.run.digests import of_images
        from diffcern.run.journal import begun
        from diffcern.run.maps import adapt_maps, check_unused
        from diffcern.run.order import shuffled, warned
        from diffcern.run.predict import adapt_rows, answers
        from diffcern.run.purify import file_names

        dense = KINDS[self.task].dense if self.task in KINDS else False
        if dense and out is None:
            raise UsageError(f"answers of {self.task} are maps, and are written beside a table: give out")
        if dense and out and in_parts(out):
            raise UsageError(f"answers of {self.task} are maps, beside a table in one file: give --out FILE.parquet")
        names: dict[str, Any] = {"predictor": self.predictor, "prior": self.prior or None, "task": self.task}
        stream = ("online" if self.online else "episodic", self.batch_size)
        names |= {"trust_remote_code": self.trust_remote_code}
        given = self.asked(self.method, self.options, stream=stream, **names)
        predictor, method, dataset = given.models.predictor, given.method, given.dataset
        assert predictor is not None  # it was named
        self._check(method, given)
        beside = self.online or method.needs_batch  # an answer depends on the images before it or beside it
        settings = {
            **given.settings,
            "loaded": method.loaded,
            "fingerprints": given.models.fingerprints(),
            "online": self.online,
            "batch_size": self.batch_size,
            "seed": self.seed,
            **({"shuffle": True} if self.shuffle else {}),
            **({"abstain_below": self.abstain_below} if self.abstain_below else {}),
        }
        maps = Path(out).with_suffix("") if dense and out else None
        if maps:
            check_apart("the maps", maps, Path(self.images))
            if out and not begun(Path(out)):
                check_unused(maps)

        images = shuffled(dataset, self.seed) if self.shuffle else dataset

        def rows(todo: Sequence[int]) -> Iterator[Row]:
            found = answers(
                images,
                method,
                predictor,
                online=self.online,
                batch_size=self.batch_size,
                seed=self.seed,
                device=given.models.device,
                todo=todo,
            )
            if maps:
                return adapt_maps(predictor, found, file_names(dataset.ids), maps)
            heard = warned(found, events.say) if beside and not self.shuffle else found
            return adapt_rows(predictor, heard, least=self.abstain_below)

        digests = None if beside else partial(of_images, dataset)
        schema = columns.adapted(dense, method.needs_batch)
        return Work("adapting", settings, images.ids, rows, digests, not beside, method.evaluations, schema)

    def _check(self, method: Method, given: Asked) -> None:
        """Raises UsageError where the images at a time, or their order, are not for such a method."""
        if self.abstain_below and KINDS[self.task].dense:
            raise UsageError(f"--abstain-below is of one answer for an image, and this is {self.task}: leave it out")
        if self.batch_size > 1 and not self.online and not method.needs_batch:
            raise UsageError(
                f"{self.method} answers single images when episodic: leave --batch-size at 1, or give --online"
            )
        single = min(self.batch_size, len(given.dataset)) == 1
        if method.needs_batch and single and not given.settings["options"].get("source_count"):
            raise UsageError(
                f"{self.method} reads the statistics of a batch, and one image has none: give several images and "
                "--batch-size (as published: 64 to 200, with --online)"
            )
        if self.shuffle and not (self.online or method.needs_batch):
            raise UsageError(
                f"--shuffle is for --online and what reads a batch: {self.method} answers image by image, "
                "so leave it out"
            )
