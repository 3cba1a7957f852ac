"""Sphinx configuration; `make docs` builds the site without any network."""

import os
import sys
from pathlib import Path

from sphinx.util import logging

import sklearn_dialpref
from sklearn_dialpref.datasets import fetch_deli

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from _methods import documented_methods  # noqa: E402

# The examples load the packaged encoder and draw to files, on any machine.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
DATA = HERE.parents[1] / "shared" / "data"
if DATA.is_dir():
    os.environ.setdefault("DIALPREF_DATA", str(DATA))

project = "sklearn-dialpref"
author = "sklearn-dialpref developers"
copyright = f"2026, {author}"
release = sklearn_dialpref.__version__
version = ".".join(release.split(".")[:2])

REPOSITORY = "https://github.com/sklearn-dialpref/sklearn-dialpref"
SITE = "https://sklearn-dialpref.github.io/sklearn-dialpref/"

INSTALLED = "sklearn-dialpref[datasets,llm,offline,onnx,plot]"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_design",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "_drawings",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "py:obj"
rst_prolog = ".. currentmodule:: sklearn_dialpref\n"
nitpicky = True  # links to nothing are errors, but for mere names in backticks and other packages
nitpick_ignore_regex = [
    ("py:obj", ".*"),
    (
        "py:.*",
        r"(sklearn|matplotlib|numpy|pandas|polars|torch|skorch|openai|dask|ray|pyspark)\..*",
    ),
]
smartquotes = False  # they would turn the quotes of default values

autosummary_generate = True
autosummary_context = {"documented_methods": documented_methods()}
autodoc_typehints = "none"  # numpydoc sections state the types
numpydoc_show_class_members = False  # the class template lists them
numpydoc_xref_param_type = False
toc_object_entries_show_parents = "hide"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"
copybutton_selector = "div.highlight pre:not(.sphx-glr-script-out *)"


def tutorial_runs() -> bool:
    """Whether its dialogues are on this machine, or can be downloaded."""
    try:
        fetch_deli(n_retries=0)
    except OSError as error:
        logging.getLogger(__name__).info("the tutorial is shown, but not run: %s", error)
        return False
    return True


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_" if tutorial_runs() else r"/plot_(?!00_)",
    "ignore_pattern": r"(^|/)(?!plot_)[^/]+\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 1,
    "plot_gallery": True,
    "doc_module": ("sklearn_dialpref",),
    "reference_url": {"sklearn_dialpref": None},
    "backreferences_dir": "api/examples",
    "first_notebook_cell": f"# What the example needs\n%pip install --quiet '{INSTALLED}' polars",
    "write_computation_times": False,  # a page that asks other hosts for its scripts
}

html_theme = "pydata_sphinx_theme"
html_title = "sklearn-dialpref"
html_baseurl = SITE
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_context = {"default_mode": "auto"}  # unset, the theme's script reports an error
html_theme_options = {
    "logo": {
        "text": "sklearn-dialpref",
        "image_light": "_static/logo-light.svg",
        "image_dark": "_static/logo-dark.svg",
        "alt_text": "",
    },
    "icon_links": [{"name": "GitHub", "url": REPOSITORY, "icon": "fa-brands fa-github"}],
    "navbar_end": ["version-switcher", "theme-switcher", "navbar-icon-links"],
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_nav_level": 2,
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "switcher": {"json_url": "_static/switcher.json", "version_match": version},
    "show_version_warning_banner": True,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "install": [], "changelog": [], "references": []}
