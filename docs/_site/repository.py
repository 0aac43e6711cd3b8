"""Links from pages to files of the repository: to the page that the site makes of them, or to a copy."""

from __future__ import annotations

import os
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

PAGES = {
    "contributing": "CONTRIBUTING.md",
    "releasing": "RELEASING.md",
    "changelog": "CHANGELOG.md",
}  # of the site, from files beside docs/


class Linked(SphinxTransform):
    """MyST copies other files itself, but takes what ends like a page for one, wherever it lies: Markdown outside of
    docs/ is copied too. Of an example and of their folder's introduction the site has pages."""

    default_priority = 5

    def apply(self) -> None:
        here = Path(self.env.doc2path(self.env.docname)).parent
        for link in list(self.document.findall(addnodes.pending_xref)):
            if link.get("refdomain") == "doc" and Path(link["reftarget"]).is_absolute():
                place = Path(link["reftarget"])
                if place.parent.name == "examples":
                    link["reftarget"] = "gallery/index"
                    continue
                target = os.path.relpath(f"{place}.md", here)
                copied = addnodes.download_reference("", "", reftarget=target, refdoc=self.env.docname)
                copied += nodes.literal("", link.astext(), classes=["xref", "download"])
                link.replace_self(copied)
        for link in list(self.document.findall(addnodes.download_reference)):
            place = Path(link["reftarget"])
            if place.parent.name == "examples":
                target = f"gallery/{place.stem}"
                page = addnodes.pending_xref("", refdomain="doc", reftype="myst", reftarget=target, refexplicit=True)
                page["reftargetid"], page["refdoc"] = None, self.env.docname
                page += nodes.inline("", link.astext())
                link.replace_self(page)


def write_pages(app: Sphinx) -> None:
    for page, file in PAGES.items():
        text = Path(app.srcdir, "..", file).read_text()
        for other, name in PAGES.items():
            text = text.replace(f"]({name}", f"]({other}.md")
        write(Path(app.srcdir, f"{page}.md"), text.replace("](docs/", "]("))


def write(page: Path, text: str) -> None:
    """Leaves a page alone that says this already, so that Sphinx does not read it again."""
    if not page.is_file() or page.read_text() != text:
        page.parent.mkdir(exist_ok=True)
        page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(Linked)
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
