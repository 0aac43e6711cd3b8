"""Tiny data and models that answer questions, written to disk."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hub_checkpoints import loud
from PIL import Image

from diffcern.data import load_questions
from diffcern.predictors.question_answering import Answerer, save_answerer
from diffcern.train.question_answering import AnswererRecipe, new_answerer

COLOURS = {"red": (230, 20, 20), "blue": (20, 20, 230), "dark green": (10, 150, 60), "white": (250, 250, 250)}
SIDES = ("left", "right")
COLOUR, SIDE = "what colour is it?", "which side is darker?"
RECIPE = AnswererRecipe(16, 8, width=16, depth=1, heads=2, text_width=16, text_depth=1, text_heads=2, questions=2)


def picture(colour: tuple[int, int, int], darker: str, side: int = 16) -> bytes:
    """One colour, one half of it darkened, as PNG."""
    image = Image.new("RGB", (side, side), colour)
    half = Image.new("RGB", (side // 2, side), tuple(value // 4 for value in colour))
    image.paste(half, (0 if darker == "left" else side // 2, 0))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def question_table(path: Path, rows: Sequence[dict[str, object]] | None = None) -> str:
    """The name of a table of eight questions: the colour and the darker side of four pictures."""
    if rows is None:
        rows = []
        for k, (name, rgb) in enumerate(COLOURS.items()):
            image = {"bytes": picture(rgb, SIDES[k % 2]), "path": None}
            said = {"colour": (COLOUR, name, list(COLOURS)), "side": (SIDE, SIDES[k % 2], list(SIDES))}
            for kind, (question, answer, choices) in said.items():
                asked = {"id": f"{kind}-{k}", "image": image, "question": question, "answer": answer}
                rows.append({**asked, "choices": choices, "kind": kind})
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return f"questions:{path}"


def tiny(folder: Path) -> Answerer:
    """Untrained, with random numbers everywhere, for the words of the table."""
    torch.manual_seed(0)
    answerer = new_answerer(RECIPE, load_questions(question_table(folder / "words.parquet")))
    loud(answerer.model)
    return answerer.eval().requires_grad_(False)


def saved(folder: Path) -> Path:
    """A folder as of `diffcern train answerer`."""
    save_answerer(tiny(folder.parent), folder, torch.float32)
    return folder
