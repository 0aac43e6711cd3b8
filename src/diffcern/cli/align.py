"""`diffcern align`: a predictor that knows what purification does to images, for the method sda."""

from __future__ import annotations

from diffcern.cli.bars import Bars
from diffcern.cli.consoles import remarks
from diffcern.cli.derive import from_job
from diffcern.cli.options import OutFolder
from diffcern.jobs.align import Align


def show_alignment(job: Align, out: OutFolder) -> None:
    from diffcern.alignment import PREDICTOR

    aligned = job.carry_out(out, events=Bars())
    if losses := aligned.losses:
        best = losses.index(min(losses))
        remarks().print(f"validation loss {losses[0]:.3f} before, {losses[best]:.3f} after epoch {best}, which is kept")
    remarks().print(f"in {out / PREDICTOR}; answer with it: --method sda --set aligned={out}")


align = from_job(Align)(show_alignment)
align_answerer = from_job(Align, task="qa")(show_alignment)
align_answerer.__doc__ = "The same as align --task qa: for a model that answers questions."
