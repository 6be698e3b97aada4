"""How Sphinx builds the book. `python -m notebooks` calls it."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))  # the documented mcgrad is the one of this clone, whatever is installed
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # of the cells too
# One look for all pictures.
os.environ["MATPLOTLIBRC"] = str(ROOT / "mcgrad/diagnostics/pictures.mplstyle")
os.environ["IPYKERNEL_CELL_NAME"] = "cell.py"  # in messages that name a line

from sphinx.util.inspect import stringify_signature  # noqa: E402

import mcgrad  # noqa: E402
from notebooks import api  # noqa: E402

project = "mcgrad"
author = "The mcgrad developers"
version = release = mcgrad.__version__
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_copybutton"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
nitpicky = False

# Pages: Markdown with `{code-cell}`s, executed at the build.
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_merge_streams = True

# The reference: what docstrings say, with their signatures. Single backticks are code, as in Markdown.
default_role = "code"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_use_type_comments = False
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_preprocess_types = False

# Pages that look the same without network: fonts of the system, and MathJax from a package, one file of it.
html_theme = "furo"
html_title = "mcgrad"
html_static_path = [
    "static",
    str(distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax/tex-svg.js")),
]
html_css_files = ["book.css"]
html_js_files = ["tables.js"]
html_show_sourcelink = False
html_show_copyright = False
html_copy_source = False
html_last_updated_fmt = None
mathjax_path = "tex-svg.js"
pygments_style = "default"
pygments_dark_style = "github-dark"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Files of the repository that are pages of the book too: links to them, as they work on a code host, lead to these pages.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/RESULTS.md": "measured.md",
    **{
        f"benchmarks/results/{path.name}": f"measured_{path.stem.lower()}.md"
        for path in (ROOT / "benchmarks/results").glob("*.md")
    },
}


def _link(text: str, folder: Path) -> str:
    """Links of a file in `folder` to files of the repository, as links of a page."""

    def replaced(match: re.Match[str]) -> str:
        target, anchor = match[2], match[3] or ""
        path = Path(os.path.normpath(folder / target))
        if not path.is_relative_to(ROOT) or not path.exists():
            return match[0]
        name = path.relative_to(ROOT).as_posix()
        if path.parent == HERE:
            new = path.name
        elif name in PAGES:
            new = PAGES[name]
        else:
            new = os.path.relpath(path, HERE)
        return f"{match[1]}({new}{anchor})"

    return re.sub(r"(\])\(([^)\s#:]+)(#[^)\s]*)?\)", replaced, text)


def _of_page(app: Any, docname: str, content: list[str]) -> None:
    listed = re.sub(r"```\{api\} (\w+)\n", lambda match: f"```{{eval-rst}}\n{api.directives(match[1])}\n", content[0])
    content[0] = _link(listed, HERE)


def _of_included(app: Any, path: Path, docname: str, content: list[str]) -> None:
    content[0] = _link(content[0], (HERE / path).resolve().parent)


def _of_dataclass(app: Any, what: str, name: str, thing: Any, *rest: Any) -> tuple[str, None] | None:
    """A dataclass is called with its fields, whatever stands before its constructor."""
    if not (isinstance(thing, type) and dataclasses.is_dataclass(thing)):
        return None
    signature = inspect.signature(thing.__init__)
    fields = [parameter for name, parameter in signature.parameters.items() if name != "self"]
    shown = signature.replace(parameters=fields, return_annotation=inspect.Signature.empty)
    return stringify_signature(shown, unqualified_typehints=True), None


SECTIONS = ("Args", "Attributes", "Example", "Examples", "Note", "Raises", "References", "Returns", "Yields")


def _of_docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings read well as plain text: an indented formula is shown as it stands, and backticks are those of Markdown."""
    shown: list[str] = []
    section = False
    for i, line in enumerate(lines):
        if line and not line.startswith(" "):
            section = line.rstrip(":") in SECTIONS and line.endswith(":")
        if line.startswith("    ") and not section and i and not lines[i - 1]:
            shown += ["::", ""]
        shown.append(line)
    lines[:] = re.sub(r"(?<!`)`([^`]+)`(?!`)(\w?)", _literal, "\n".join(shown)).split("\n")


def _literal(match: re.Match[str]) -> str:
    return f"``{match[1]}``" + (f"\\ {match[2]}" if match[2] else "")


def _without(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Fields of named tuples are told by the docstring of their class."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field number") else None


def _cells_to_run(app: Any, config: Any) -> None:
    if config.fast:
        pages = [path.name for path in HERE.iterdir() if path.suffix in (".md", ".ipynb")]
        config.nb_execution_excludepatterns = [name for name in pages if name != "start_here.md"]
        config.suppress_warnings.append("myst-nb.lexer")  # cells that do not run do not tell their language


def setup(app: Any) -> None:
    app.add_config_value("fast", False, "env")
    app.connect("config-inited", _cells_to_run, priority=100)
    app.connect("autodoc-skip-member", _without)
    app.connect("autodoc-process-signature", _of_dataclass)
    app.connect("autodoc-process-docstring", _of_docstring, priority=100)  # before Napoleon reads its sections
    app.connect("source-read", _of_page)
    app.connect("include-read", _of_included)
