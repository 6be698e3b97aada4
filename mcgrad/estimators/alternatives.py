"""What refusals of the discrete estimators say: which others would work for the law at hand."""

from __future__ import annotations

from mcgrad.estimators.enumeration import Enumerate
from mcgrad.estimators.local_expectation import LocalExpectation
from mcgrad.estimators.pathwise import Pathwise
from mcgrad.estimators.score import Score
from mcgrad.estimators.smoothed_perturbation import SmoothedPerturbation
from mcgrad.program.site import Site


def without_finite_support(site: Site) -> str | None:
    """The obstacle of estimators that go through the values of a draw."""
    if site.facts.support is not None:
        return None
    return f"the law has no finite support that is known beforehand. {instead(site)}"


def instead(site: Site) -> str:
    """The estimators that have no obstacle at a site."""
    candidates = (Pathwise(), LocalExpectation(), Enumerate(), Score(), SmoothedPerturbation())
    usable = [e for e in candidates if e.obstacle(site) is None]
    names = [f"`mcgrad.{type(e).__name__}()`" for e in usable]
    if not names:
        return "Give it a `log_prob`, an `icdf` or a `support`, see `mcgrad.distribution`."
    return f"Use {', '.join(names[:-1]) + ' or ' if names[1:] else ''}{names[-1]} here."
