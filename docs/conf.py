"""Sphinx's settings for the site: `scripts/site` builds it, and every warning is an error."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the parts of the site in _site/

import diffcern  # noqa: E402

project = "diffcern"
copyright = "The diffcern developers"
version = release = diffcern.__version__

extensions = [
    "sphinx.ext.autodoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "_site.repository",  # links to files of the repository that are no pages
    "_site.findings",  # the page findings.md
    "_site.api",  # the pages api/*.md
    "_site.signatures",  # and their types have bounds
    "_site.docstrings",  # our docstrings are prose
    "_site.options",  # the options at the end of each method's page
]
exclude_patterns = ["_site", "gallery/*.py", "gallery/*.ipynb", "gallery/*.md5"]
nitpicky = True
inner = "State|Kind|Schedule|Work|TextEncoder|Vocabulary|NativeConfig|Piece|Result|Indexed|T|Pairs|Questions"
nitpick_ignore_regex = [
    ("py:.*", r"(?!diffcern\.).*"),  # other libraries' names: their documentation is not here
    ("py:.*", rf"diffcern\..*({inner})"),  # in signatures, and no part of the interface
]
suppress_warnings = ["config.cache", "misc.highlighting_failure"]

myst_heading_anchors = 4  # as code hosts make them
myst_enable_extensions = ["colon_fence"]
highlight_language = "none"  # equations and output stand in plain fences

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False
smartquotes = False  # --option is an option

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "/",  # all are run
    "within_subsection_order": "FileNameSortKey",
    "copyfile_regex": r"",
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 1,
    "write_computation_times": False,  # their page is made with scripts of other hosts
    "remove_config_comments": True,
    "plot_gallery": os.environ.get("EXAMPLES") != "skip",  # scripts/site --quick
    "matplotlib_animations": False,
    "image_scrapers": ("matplotlib",),
    "reset_modules": ("_site.pictures.reset",),
    "nested_sections": False,
}

html_theme = "furo"
html_title = "diffcern"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_search_summary = False  # it is fetched, which pages opened from a disk may not
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1b5a99", "color-brand-content": "#1b5a99"},
    "dark_css_variables": {"color-brand-primary": "#7fb4e8", "color-brand-content": "#7fb4e8"},
}
