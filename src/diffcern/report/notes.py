"""A record's named numbers as sentences: the margin, the view that was chosen, the place in the stream."""

from __future__ import annotations

from collections.abc import Mapping

VIEW = ("view_gain", "view_offset", "view_turn")


def sentences(notes: Mapping[str, float]) -> list[str]:
    """What a record notes, in words; what this version has no words for by its name."""
    left, found = dict(notes), []
    if "margin" in left:
        error = left.pop("margin_standard_error", None)
        spread = "" if error is None else f" ± {error:.3g} (standard error)"
        found.append(f"The closest other answer is behind by a margin of {left.pop('margin'):.3g}{spread}.")
    if "stopped_after" in left:
        rivals = left.pop("rivals_left", 0)
        still = f"{rivals:.0f} rivals were still in" if rivals else "no rival was left"
        found.append(f"The race ended after {left.pop('stopped_after'):.0f} draws: {still}.")
    if all(name in left for name in VIEW):
        found.append(_view(left))
    if "view_hidden" in left:
        share, nats, ground = left.pop("view_hidden"), left.pop("view_hidden_nats"), left.pop("view_ground", 0.0)
        what = f"ground, darker than {ground:.3g}" if ground else "hidden, and painted"
        found.append(f"Of it {100 * share:.3g} % are {what}, which is likelier by {nats:.4g} nats.")
    if "order" in left:
        found.append(f"Number {left.pop('order') + 1:.0f} of the stream.")
    if "batch" in left:
        found.append(f"In a batch of {left.pop('batch'):.0f}, smaller than the others.")
    return found + [f"{name.replace('_', ' ')}: {value:.4g}." for name, value in left.items()]


def _view(left: dict[str, float]) -> str:
    """Takes what it says out of `left`."""
    gain, offset, turn = (left.pop(name) for name in VIEW)
    veil = left.pop("view_veil", 0.0)
    nats, error = left.pop("view_nats", None), left.pop("view_nats_standard_error", None)
    parts = [f"without a veil of {veil:.3g}"] if veil else []
    parts += [f"turned by {turn:.3g}°"] if turn else []
    parts += [f"light times {gain:.3g}"] if abs(gain - 1) > 5e-4 else []
    parts += [f"plus {offset:.3g}"] if abs(offset) > 5e-4 else []
    if not parts:
        return "Seen as it is."
    spread = "" if error is None else f" ± {error:.3g}"
    likelier = "" if nats is None else f", which is likelier by {nats:.4g}{spread} nats"
    return f"Seen {', '.join(parts)}{likelier}."
