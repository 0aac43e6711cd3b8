"""What came out, as the page shows it: answers, the race of an explanation, and the explanation."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui
from torch import Tensor

from diffcern.app.frame import small_print
from diffcern.app.pictures import depths, legend, masks, shown
from diffcern.app.trial import Answer, Question
from diffcern.explaining import Explanation
from diffcern.report.explained import levels, overlay

TOP = 4  # classes of an answer
TALL = 60  # pixels of a loss curve
WIDE = 12  # em, of a name that is a sentence


def answer(found: Answer, title: str, question: Question) -> None:
    """A card: the answer, how sure, what it took."""
    _card(found, title, question, f"{found.evaluations} evaluations, {found.seconds:.2f} s")


def on_the_way(found: Answer, title: str, question: Question, name: str) -> None:
    """A card of a method's answer that is not there yet: what it would be now. name: of the method."""
    most = question.world.method(name).evaluations
    far = f"{found.evaluations} evaluations, of about {most}, {found.seconds:.1f} s"
    _card(found, f"{title}, on its way", question, far)


def _card(found: Answer, title: str, question: Question, cost: str) -> None:
    with ui.card().classes("w-full").props(f'role="group" aria-label="{title}"'):
        with ui.row().classes("items-baseline gap-3 w-full"):
            ui.label(title).classes("font-medium")
            ui.space()
            small_print(cost)
        with ui.row().classes("w-full gap-4 items-start"):
            with ui.column().classes("gap-2 grow").style("flex-basis: 260px; min-width: 0"):
                if found.output is not None:
                    (_map if question.world.dense else _classes)(found.output, title, question)
                if found.told:
                    small_print(found.told)
                if len(found.trace) > 1:
                    _curve(found.trace)
            if found.seen is not None:
                _captioned(found.seen, "what it makes of the picture")


def _map(output: Tensor, title: str, question: Question) -> None:
    task = question.world.models.task
    shown(masks(output) if task.kind.classes else depths(output), f"The map of {title}", 220)
    if task.kind.classes:
        _legend(output, task.class_names)
    else:
        small_print(f"{float(output.min()):.1f} m (bright) to {float(output.max()):.1f} m (dark)")


def _legend(output: Tensor, names: Sequence[str]) -> None:
    with ui.row().classes("gap-x-3 gap-y-1"):
        for name, colour, share in legend(output, names):
            with ui.row().classes("items-center gap-1"):
                ui.element("span").style(f"background: {colour}; width: 12px; height: 12px; border-radius: 2px")
                small_print(f"{name} {100 * share:.0f} %")


def _classes(output: Tensor, title: str, question: Question) -> None:
    names, sure, truth = question.world.models.task.class_names, output.float().softmax(0), question.picture.truth
    best, right = int(sure.argmax()), question.world.right(truth)
    verdict = "" if right is None else " – right" if best == right else f" – wrong: it is {truth}"
    ui.label(f"{names[best]}{verdict}").classes("text-lg")
    for row in sure.argsort(descending=True)[:TOP].tolist():
        _bar(names[row], float(sure[row]))


def _bar(name: str, share: float) -> None:
    with ui.row().classes("items-center gap-2 w-full no-wrap"):
        ui.label(name).classes("text-sm").style(f"width: {WIDE if len(name) > 16 else 7}em; overflow-wrap: anywhere")
        bar = ui.linear_progress(share, show_value=False, size="10px").classes("grow")
        bar.props(f'aria-label="{100 * share:.0f} percent"')
        ui.label(f"{100 * share:.1f} %").classes("text-sm").style("width: 5em; text-align: right; white-space: nowrap")


def _curve(trace: Sequence[float]) -> None:
    """The loss at each step."""
    low, high = min(trace), max(trace)
    points = " ".join(
        f"{300 * k / (len(trace) - 1):.1f},{TALL - (TALL - 6) * (value - low) / (high - low or 1) - 3:.1f}"
        for k, value in enumerate(trace)
    )
    line = f'<polyline points="{points}" fill="none" stroke="#0072b2" stroke-width="2"/>'
    label = f"The loss, from {trace[0]:.3g} to {trace[-1]:.3g} in {len(trace)} steps"
    how = f'viewBox="0 0 300 {TALL}" preserveAspectRatio="xMinYMid" style="width: 100%; height: {TALL}px"'
    ui.html(f'<svg role="img" aria-label="{label}" {how}>{line}</svg>', sanitize=False).classes("w-full")
    small_print(label)


def race(found: Explanation, evaluations: int, names: Sequence[str]) -> None:
    """An explanation on the way: how far each is behind the first."""
    with ui.card().classes("w-full"):
        ui.label(f"{names[found.order[0]]} leads after {len(found.times)} draws").classes("text-lg")
        for k in found.order[1:]:
            more, error = found.behind(k)
            small_print(f"{names[k]}: an error larger by {more:.4f} ± {error:.4f}")
        small_print(f"{evaluations} evaluations of the denoiser")


def explanation(found: Explanation, image: Tensor, evaluations: int, names: Sequence[str]) -> None:
    """In whole, as `diffcern explain` shows it."""
    with ui.card().classes("w-full").props('role="group" aria-label="Explanation"'):
        for sentence in found.in_words(names):
            ui.label(sentence)
        first, second = (names[k] for k in found.order[:2])
        with ui.row().classes("gap-3"):
            _captioned(image, "the image, as the prior is shown it")
            for k in found.order:
                _captioned(found.seen[k], f"told {names[k]}")
            _captioned(overlay(image, found.gaps), f"blue: for {first}, orange: for {second}")
        ui.html(levels(found, "levels"), sanitize=False).style("width: min(100%, 440px)")
        small_print(f"By noise level, with 95 % intervals; {evaluations} evaluations of the denoiser.")


def _captioned(image: Tensor, text: str) -> None:
    with ui.column().classes("gap-1").style("width: min(130px, 42vw)"):
        shown(image, text, 130)
        small_print(text)
