"""Links from pages to files of the repository that are no pages: the site holds a copy of them."""

from __future__ import annotations

import os
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

PAGES = {"contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}  # of the site, from files beside docs/


class CopyMarkdown(SphinxTransform):
    """Other files are copied by MyST itself. What ends in .md it takes for a page, wherever it lies."""

    default_priority = 5

    def apply(self) -> None:
        here = Path(self.env.doc2path(self.env.docname)).parent
        for link in list(self.document.findall(addnodes.pending_xref)):
            if link.get("refdomain") != "doc" or not Path(link["reftarget"]).is_absolute():
                continue
            target = os.path.relpath(link["reftarget"] + ".md", here)
            copied = addnodes.download_reference("", "", reftarget=target, refdoc=self.env.docname)
            copied += nodes.literal("", link.astext(), classes=["xref", "download"])
            link.replace_self(copied)


def write_pages(app: Sphinx) -> None:
    for page, file in PAGES.items():
        text = Path(app.srcdir, "..", file).read_text()
        write(Path(app.srcdir, f"{page}.md"), text.replace("](docs/", "]("))


def write(page: Path, text: str) -> None:
    """Leaves a page alone that says this already, so that Sphinx does not read it again."""
    if not page.is_file() or page.read_text() != text:
        page.parent.mkdir(exist_ok=True)
        page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(CopyMarkdown)
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
