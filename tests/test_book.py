"""The book: no public name and no chapter is left out, and links between files of the repository lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mcgrad
from notebooks import api

ROOT = Path(__file__).parent.parent
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.md")}
LINKS = re.compile(r"\]\(([^)\s]+)\)")


def test_every_public_name_is_in_the_reference_once():
    listed = [name for names in api.pages().values() for name in names]
    assert len(listed) == len(set(listed)) and set(listed) == set(api.public())
    assert all(f"```{{api}} {page}" in PAGES[page] for page in api.GROUPS)


def test_every_public_name_is_in_a_chapter():
    """Those of `mcgrad` alone: what only authors of estimators and distributions need is told in docstrings."""
    told = "".join(text for name, text in PAGES.items() if not name.startswith("api_") and "{include}" not in text)
    missing = {
        name for name, (module, _) in api.public().items() if module == "mcgrad" and not re.search(rf"\b{name}\b", told)
    }
    assert missing == set()


def test_every_page_is_in_the_table_of_contents():
    listed = re.findall(r"^(\w+)$", "".join(re.findall(r"```{toctree}(.*?)```", PAGES["index"], re.S)), re.M)
    assert sorted(listed) == sorted(set(PAGES) - {"index"})


WITH_CELLS = sorted(name for name, text in PAGES.items() if "```{code-cell}" in text)


@pytest.mark.parametrize("name", WITH_CELLS)
def test_cells_are_run_and_pictures_have_texts(name):
    assert PAGES[name].startswith("---\nfile_format: mystnb\n"), "copy the first lines of another chapter"
    cells = re.findall(r"^```{code-cell}[^\n]*\n(.*?)^```$", PAGES[name], re.S | re.M)
    assert not [cell for cell in cells if re.search(r"plt\.show\(|^Image\(", cell, re.M) and "    alt: " not in cell]


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *(ROOT / "notebooks").glob("*.md")], ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(path):
    for link in LINKS.findall(re.sub(r"```.*?```|`[^`]*`", "", path.read_text(encoding="utf-8"), flags=re.S)):
        if link.startswith(("http", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        there = path if not target else path.parent / target
        assert there.exists(), f"{path.name} links to {link}"
        if anchor:
            assert anchor in _anchors(there), f"{path.name} links to {link}"


def _anchors(path: Path) -> set[str]:
    text = path.read_text(encoding="utf-8")
    if included := re.match(r"```{include} (\S+)\n", text):
        return _anchors(path.parent / included[1])
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_version_is_the_package_s():
    assert (
        mcgrad.__version__ == re.search(r'^__version__ = "(.*?)"', (ROOT / "mcgrad/__init__.py").read_text(), re.M)[1]
    )
