"""The page findings.md, of the comments that findings/*.sh begin with."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

from _site.repository import write

HEAD = """# Findings

What surprised us in other libraries. Each is a script that shows it in a fresh environment with the versions that
it names, and fails once it is no longer so: `findings/NAME.sh`.
"""


def comment(script: Path) -> str:
    """What the script says of itself: its first sentences, up to the first line that is run."""
    lines = script.read_text().splitlines()[1:]
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:end])


def sections(folder: Path) -> str:
    parts = [HEAD]
    for script in sorted(folder.glob("*.sh")):
        title = script.stem.replace("-", " ")
        said = comment(script).replace("<", r"\<").replace("_", r"\_").replace("*", r"\*")
        parts.append(f"## {title[0].upper()}{title[1:]}\n\n{said}\n\n[{script.name}](../findings/{script.name})\n")
    return "\n".join(parts)


def write_page(app: Sphinx) -> None:
    write(Path(app.srcdir, "findings.md"), sections(Path(app.srcdir, "../findings")))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
