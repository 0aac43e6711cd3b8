"""Why a prior takes images for what it does: pictures, errors by noise level, and sentences, on a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from dataclasses import dataclass as plain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic.dataclasses import dataclass

from diffcern.errors import DiffcernError, UsageError
from diffcern.fields import Images, Labels, MaxSide, PriorName, Templates, View, help_of
from diffcern.jobs.base import CHECKED, Events, Row, Silent, keeping
from diffcern.jobs.models import OnModels

if TYPE_CHECKING:
    from torch import Tensor

    from diffcern.data import Sample, UnreadableImage
    from diffcern.explaining import Explanation
    from diffcern.run.models import LoadedModels


@plain(frozen=True)
class Told:
    """An image that was explained. image: as the prior is shown it, `[3, h, w]`; names: of the hypotheses; error: why
    it was skipped, and then nothing else is there."""

    id: str
    names: tuple[str, ...] = ()
    image: Tensor | None = None
    explanation: Explanation | None = None
    evaluations: int = 0
    error: str | None = None

    @property
    def row(self) -> Row:
        """In plain values."""
        if self.explanation is None:
            return {"id": self.id, "error": self.error}
        found = self.explanation
        return {
            "id": self.id,
            "answers": [self.names[k] for k in found.order],
            "errors": [round(float(found.errors[k].mean()), 6) for k in found.order],
            "margin": found.margin,
            "margin_standard_error": found.standard_error,
            "sure": found.sure,
            "levels": [asdict(band) for band in found.bands],
            "in_words": found.in_words(self.names),
            "nfe_forward": self.evaluations,
            "error": None,
        }


@plain(frozen=True)
class Explained:
    """told: of each image; out: the page, where one was asked for."""

    told: list[Told]
    out: Path | None

    @property
    def skipped(self) -> int:
        return sum(bool(each.error) for each in self.told)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Explain(OnModels):
    """Explain what a prior takes images for: what it sees under each label, at which noise, and where in the picture.

    For captions give them as labels, with the prompt "{}".
    """

    command = "explain"

    images: Images
    prior: PriorName
    labels: Labels = None
    templates: Templates = None
    top: Annotated[int, help_of("labels that are set against each other, the likeliest ones", ge=2)] = 3
    draws: Annotated[int, help_of("times and noises that each of them is asked about", ge=4)] = 48
    count: Annotated[int, help_of("images at most, the first ones", ge=1)] = 12
    view: View = "centre"
    max_side: MaxSide = 4096

    def carry_out(self, out: Path | None, *, overwrite: bool = False, events: Events = Silent()) -> Explained:
        """out: the page, an HTML file."""
        from diffcern.files import check_folder, write_whole
        from diffcern.report.explained import page

        if out:
            if out.suffix not in (".html", ".htm"):
                raise UsageError(f"--out is a page, FILE.html, not {out.name!r}")
            if out.exists() and not overwrite:
                raise DiffcernError(f"{out} exists: give another --out, or --overwrite")
            check_folder(out.parent)
        told: list[Told] = []
        with keeping(lambda: "nothing is kept"):
            told += self.each(events)
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_whole(out, page(told, self.prior).encode())
        return Explained(told, out)

    def each(self, events: Events) -> Iterator[Told]:
        """One image after the other. Raises as `Job.carry_out`."""
        from diffcern.data import load_dataset, readable
        from diffcern.devices import device_named
        from diffcern.jobs.images import check_templates
        from diffcern.run.models import load_models
        from diffcern.run.spec import parse_models

        named = parse_models(self.named(prior=self.prior, labels=self.labels, templates=self.templates))
        dataset = load_dataset(self.images, max_side=self.max_side)
        models = load_models(named, device_named(self.device))
        check_templates(self.templates, models)
        count = min(self.count, len(dataset))
        samples = readable(dataset, range(count))
        with events.rows("explaining", count, 0, 0) as heard:
            yield from told_of(models, samples, heard, top=self.top, draws=self.draws, view=self.view, seed=self.seed)


def told_of(
    models: LoadedModels,
    samples: Iterable[Sample | UnreadableImage],
    heard: Callable[[Row], None],
    *,
    top: int = 3,
    draws: int = 48,
    view: View = "centre",
    seed: int = 0,
) -> Iterator[Told]:
    """What the prior of a classification takes each image for, and why; arguments as `Explain`'s."""
    from diffcern.data import UnreadableImage
    from diffcern.explaining import Watched
    from diffcern.methods.presets import preset_options
    from diffcern.resizing import views_of
    from diffcern.types import Inputs

    prior, task = models.prior, models.task
    assert prior is not None  # it was named
    options = {**preset_options("diffusion-classifier", "small", task.name), "view": view}
    method = models.method("diffusion-classifier", options)
    phrasings, owners = prior.phrasings(task.hypotheses(prior.device))  # type: ignore[attr-defined]
    for sample in samples:
        if isinstance(sample, UnreadableImage):
            heard({"id": sample.name, "error": sample.reason})
            yield Told(sample.name, error=sample.reason)
            continue
        seen = views_of([sample.image.to(prior.device)], view)
        cost, chosen = 0, list(range(len(task.class_names)))
        if len(chosen) > top:
            answer, _ = method.step(method.init(), Inputs(sample.image[None], [sample.id]), seed)
            chosen = answer.output[0].argsort(descending=True, stable=True)[:top].tolist()
            cost = answer.costs[0].nfe_forward
        rows = [k for k, owner in enumerate(owners.tolist()) if owner in chosen]
        said, latents = [int(owners[k]) for k in rows], prior.latents(seen)
        watched = Watched(prior, latents, phrasings[rows], sample.id, owners=said, draws=draws, seed=seed)
        names = tuple(task.class_names[owner] for owner in said)
        image = prior.decode(latents)[0].cpu().clamp(0, 1)
        told = Told(sample.id, names, image, watched.finish(), cost + watched.evaluations)
        heard(told.row)
        yield told
