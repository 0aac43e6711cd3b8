"""Labels from files as people have them: lists of names, ImageNet's lists, JSON, a Python dictionary, CSV with prompts.

Knows nothing about models; `labels` and `spellings` say what a name means.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffcern.errors import DiffcernError, UsageError
from diffcern.labels import WORDNET_ID
from diffcern.texts import parse_csv, parse_json, read_text

SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".names", ".yaml", ".yml")
SYNSET = re.compile(r"(n\d{8})[ \t,]+\S.*")  # "n01440764 tench, Tinca tinca", as ILSVRC's synset_words.txt has it
NUMBERED = re.compile(r"(\d+)\s*(?:[:,;\t]|[.)]\s|-\s)\s*(\S.*)|(\d+)\s+(\S.*)")  # "0: tench", "0 tench"
FOREIGN = {  # of other files than lists, whose every line is such
    "a list of YAML": re.compile(r"- .*"),
    "of quoted lines, as in JSON or a program": re.compile(r"""["'].*["'],?"""),
    "XML": re.compile(r"<.*>"),
    "a table of columns": re.compile(r".*\t.*"),
    "numbered with gaps or out of order, or not as 0: NAME": re.compile(r"\d+\s*([:.)]|-\s).*"),
}
NAMES = ("label", "classname", "class", "class_name", "name")
Labels = list[str] | dict[str, list[str]]


def read_labels(path: Path) -> Labels:
    """The labels in a file, in its order; with sentences of their own from a CSV file with a column prompt.

    A text file holds one a line ("tench, Tinca tinca" is one), behind its WordNet id or its number where it has one: an
    id stands for its class then, and numbers count from 0 or 1. JSON and YAML hold a list, an object from numbers
    to names or to [id, name], a model's id2label or a data set's names; CSV a column label. Raises UsageError for a
    file that is another kind of list, cannot be read or holds no labels, and for cells that are empty.
    """
    try:
        return _read(path)
    except UsageError:
        raise
    except DiffcernError as error:  # no text, no CSV, no JSON
        raise UsageError(f"{error}. Labels are one a line, or a CSV file with the columns prompt and label") from error


def _read(path: Path) -> Labels:
    text = read_text(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        labels = _table(text, path, "\t" if suffix == ".tsv" else ",")
    elif suffix in (".yaml", ".yml"):
        labels = _named(_yaml(text, path), path)
    elif suffix == ".json":
        labels = _named(parse_json(text, str(path)), path)
    elif text.lstrip().startswith("{"):  # a dictionary as Python prints it
        labels = _named(_literal(text, path), path)
    else:
        labels = _lines(text, path)
    if not labels:
        raise UsageError(f"{path} holds no labels: give two or more to tell apart, one a line")
    return labels


def _lines(text: str, path: Path) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if lines and all(SYNSET.fullmatch(line) for line in lines):
        return [line[:9] for line in lines]
    numbers = [NUMBERED.fullmatch(line) for line in lines]
    if len(lines) > 1 and all(numbers):
        rows = [(int(match[1] or match[3]), match[2] or match[4]) for match in numbers if match]
        first = rows[0][0]
        if first in (0, 1) and [number for number, _ in rows] == list(range(first, first + len(rows))):
            return [name.strip() for _, name in rows]
    for kind, pattern in FOREIGN.items():
        if lines and all(pattern.fullmatch(line) for line in lines):
            raise UsageError(f"{path} is {kind}, not a list of labels: give one a line ({lines[0]!r} would be a label)")
    return lines


def _table(text: str, path: Path, separator: str) -> Labels:
    rows = parse_csv(text, path, [NAMES], ("prompt",), separator)
    labels = [next(row[name] for name in NAMES if name in row) for row in rows]
    if not rows or "prompt" not in rows[0]:
        return labels
    prompts: dict[str, list[str]] = {}
    for label, row in zip(labels, rows, strict=True):
        prompts.setdefault(label, []).append(row["prompt"])
    return prompts


def _yaml(text: str, path: Path) -> Any:
    """A list or an object of names; that under `names`, as YOLO's data sets have it, where there is one."""
    import yaml  # comes with huggingface_hub

    try:
        content = yaml.load(text, yaml.BaseLoader)  # all scalars are text: "no" is a name
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not YAML ({reason}): give one label a line, in a file .txt") from error
    return content.get("names", content) if isinstance(content, dict) else content


def _literal(text: str, path: Path) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise UsageError(f"{path} begins like a dictionary and is none: give one label a line") from error


def _named(content: Any, path: Path) -> list[str]:
    """The names in a list, or in an object by their numbers."""
    if isinstance(content, dict):
        content = content.get("id2label") or content.get("label_names") or content
    if isinstance(content, dict):
        if not all(str(key).isdecimal() for key in content):
            raise UsageError(f'{path} must be a list of names, or an object from numbers to names: {{"0": "tench"}}')
        numbers = sorted(content, key=lambda key: int(key))
        first = int(numbers[0]) if numbers else 0
        if first not in (0, 1) or [int(key) for key in numbers] != list(range(first, first + len(numbers))):
            raise UsageError(f"{path} must number its names from 0 or 1 on, without gaps")
        content = [content[key] for key in numbers]
    if not isinstance(content, list):
        raise UsageError(f"{path} must be a list of names, or an object from numbers to names")
    return [_name(value, path) for value in content]


def _name(value: Any, path: Path) -> str:
    """A name, or the WordNet id beside one, as in Keras' imagenet_class_index.json."""
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        value = next((part for part in value if isinstance(part, str) and WORDNET_ID.fullmatch(part)), value[-1])
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{path} holds {value!r} in the place of a name: write one there")
    return value.strip()
