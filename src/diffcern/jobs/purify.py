"""Images brought into the domain that a prior knows, as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass as plain
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic.dataclasses import dataclass

from diffcern.errors import DiffcernError, UsageError
from diffcern.fields import (
    Images,
    MaxSide,
    Options,
    Preset,
    PriorName,
    View,
    help_of,
)
from diffcern.jobs.base import CHECKED, Events, Row, Silent, keeping
from diffcern.jobs.models import OnModels
from diffcern.jobs.spread import Spread, rest

if TYPE_CHECKING:
    from diffcern.methods.purified import Purified
    from diffcern.run.purify import Purification


Form = Literal["files", "webdataset", "parquet"]


@plain(frozen=True)
class Folder:
    """Purified images. rows: those that were made now or skipped (of shards: skipped); there: how many were made
    before; made: now; skipped: of all; sheet: a picture of some, before and after."""

    out: Path | str
    rows: list[Row]
    there: int
    made: int
    skipped: int
    sheet: Path | str

    @property
    def in_words(self) -> str:
        """In words."""
        return f"{self.made} images purified into {self.out}, {self.there} were there, {self.skipped} skipped"


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Purify(OnModels, Spread):
    """Purify images: noise them, and denoise them with a prior, guided by what they were.

    Writes PNG files named after their inputs, or shards of them, and a sheet of some before and after: the centre
    square of each image in the prior's resolution, or with the view "whole" all of it in its own.
    """

    command = "purify"

    images: Images
    prior: PriorName
    method: Annotated[str, help_of("diffpure, dda or gda")] = "dda"
    predictor: Annotated[str | None, help_of("for gda, whose guide looks through it")] = None
    solver: Annotated[str | None, help_of("ddpm, ddim, dpm-solver++, unipc, one-shot, ...")] = None
    start: Annotated[int | None, help_of("the timestep that images are noised to", ge=0)] = None
    steps: Annotated[int | None, help_of("from there to the image", ge=1)] = None
    preset: Preset = "small"
    options: Options = field(default_factory=dict)
    batch_size: Annotated[int, help_of("images at a time; changes no result", ge=1)] = 16
    view: View = "centre"
    form: Annotated[Form, help_of("PNG files, or shards of 1,000 images: files, webdataset or parquet")] = "files"
    max_side: MaxSide = 4096

    def idle(self) -> tuple[frozenset[str], str]:
        if self.method == "gda":
            return frozenset(), ""
        return frozenset(("predictor", "allow_pickle")), "only for gda, whose guide looks through a predictor"

    def carry_out(self, out: Path | str | None, *, overwrite: bool = False, events: Events = Silent()) -> Folder:
        """out: a folder, or of shards as text the address of one in an object store. overwrite: has no meaning here:
        images that are there are not made again."""
        from diffcern.files import check_apart, place_of
        from diffcern.run.parts import check_parts
        from diffcern.run.purify import SHEET, PurifiedFolder, sheet
        from diffcern.run.shards import PurifiedShards

        if out is None:
            raise UsageError("purified images are files: give out, a folder")
        if self.form != "files":
            check_parts(out)
        elif not isinstance(out, Path):
            raise UsageError(f"a store takes images in shards: give --form webdataset or parquet with --out {out}")
        executor = self.executor(self.device, events)
        if isinstance(out, Path):
            check_apart("purified images", out, Path(self.images))
        method, work = self.loaded()
        settings = {"identity": method.purifier.identity, "seed": self.seed}
        settings |= {"max_side": self.max_side, "view": self.view}
        rows, count, size = list[Row](), 0, len(work.dataset)
        folder: PurifiedFolder | PurifiedShards
        if self.form == "files":
            folder = PurifiedFolder(Path(out), work.dataset, settings)
        else:
            folder = PurifiedShards(out, work.dataset, settings, self.form)
        with (
            closing(folder),
            keeping(lambda: f"what is {folder.storage.kept} is kept: run again to go on"),
            events.rows("purifying", size, folder.there + folder.skipped, method.evaluations) as heard,
            self.threads(),
        ):

            def add(made: Row) -> None:
                nonlocal count
                row = folder.add(made)
                count += not row["error"]
                if row["error"] or self.form == "files":
                    rows.append(row)
                heard(row)

            rest(executor, Elsewhere(self), work, folder.todo, work.dataset.ids, add)
            pictures = folder.finish()
            skipped = sum(bool(row["error"]) for row in rows) if self.form == "files" else folder.skipped
            purified = Folder(out, rows, folder.there, count, skipped, out)
            if not (count or folder.there):
                raise DiffcernError(purified.in_words)
            picture = sheet(work.dataset, out, self.view, pictures)
            folder.storage.write(SHEET, lambda file: file.write_bytes(picture))
        return replace(purified, sheet=place_of(folder.storage.at(SHEET)))

    def loaded(self) -> tuple[Purified, Purification]:
        """The method, and what purifies images with it."""
        from diffcern.data import load_dataset
        from diffcern.devices import device_named
        from diffcern.methods import checked_options
        from diffcern.methods.presets import over_preset
        from diffcern.methods.purification import ANSWERING, PURIFIERS, unused_predictor
        from diffcern.predictors import load_predictor
        from diffcern.run.models import load_models
        from diffcern.run.purify import Purification
        from diffcern.run.spec import parse_models

        if self.method not in PURIFIERS:
            raise UsageError(f"--method is one of {', '.join(PURIFIERS)}, not {self.method!r}")
        if self.method == "gda" and not self.predictor:
            raise UsageError("gda is guided by a classifier: give --predictor")
        own = {name: getattr(self, name) for name in ("solver", "start", "steps")}
        own = {name: value for name, value in own.items() if value is not None}
        if twice := [name for name in own if name in self.options]:
            raise UsageError(f"{twice[0]} was given twice, by --{twice[0]} and by --set {twice[0]}=...: leave one out")
        if idle := sorted((ANSWERING - {"cache", "rows"}) & self.options.keys()):
            raise UsageError(
                f"{', '.join(idle)}: options of answers to purified images (`adapt`), not of the images: leave them out"
            )
        options = over_preset(self.method, self.preset, {**self.options, **own})
        device = device_named(self.device)
        dataset = load_dataset(self.images, max_side=self.max_side)
        prior = load_models(parse_models(self.named(prior=self.prior)), device).prior
        guide = unused_predictor()
        if self.predictor:
            guide = load_predictor(self.predictor, allow_pickle=self.allow_pickle).to(device)
        method = PURIFIERS[self.method](guide, prior, **checked_options(self.method, options))
        return method, Purification(dataset, method.purifier, self.view, self.seed, self.batch_size, device)


@plain(frozen=True)
class Elsewhere:
    """Loads what purifies, where that is done."""

    job: Purify

    def __call__(self) -> Callable[[Sequence[int]], list[Row]]:
        _, work = self.job.loaded()
        return lambda rows: list(work(rows))
