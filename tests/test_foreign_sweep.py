"""Every distribution of NumPyro, Distrax and TFP-on-JAX is right in mcgrad or refused; see `benchmarks/results/FOREIGN.md`."""

from __future__ import annotations

import warnings
from typing import Any

import foreign
import pytest

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

# What is wrong in the library itself, and not used by mcgrad where it is wrong: the rows that may disagree, and why.
KNOWN: dict[tuple[str, str], tuple[str, str]] = {}


def module(library: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(foreign.LIBRARIES[library])


@pytest.mark.parametrize("library", foreign.LIBRARIES)
def test_every_distribution_of_the_library_has_a_row(library: str) -> None:
    """A new release brings new names: each wants a row."""
    exported = foreign.names(module(library))
    assert exported == {name.split(",")[0] for name in foreign.rows(library)}


def _rows() -> list[Any]:
    found = []
    for library in foreign.LIBRARIES:
        try:
            rows = foreign.rows(library)
        except ImportError:  # optional: no row without it
            continue
        found += [pytest.param(library, name, id=f"{library}-{name}") for name, row in rows.items() if callable(row)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("library", "name"), _rows())
def test_a_distribution_is_right_or_refused(library: str, name: str) -> None:
    from benchmarks.foreign import checked, problems

    found = problems(checked(foreign.rows(library)[name]))
    allowed, _ = KNOWN.get((library, name), ("", ""))
    assert [problem for problem in found if not (allowed and problem.startswith(allowed))] == []
