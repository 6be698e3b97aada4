"""What refusals say would work in place of what was asked for."""

from __future__ import annotations

import numpy as np

from mcgrad.estimators.inversion import weak_derivative_obstacle
from mcgrad.program.estimator import Estimator
from mcgrad.program.site import Facts, Site


def instead(site: Site, *others: Estimator) -> str:
    """The estimators for any law that have no obstacle at a site, known from its facts, and those of the others that have none."""
    facts = site.facts
    names = ["Pathwise"] if facts.pathwise_obstacle is None else []
    names += [type(other).__name__ for other in others if other.obstacle(site) is None]
    names += ["Score"] if "log_prob" in facts.knows and not facts.support_parameters else []
    names += ["SmoothedPerturbation"] if is_law_of_integers(facts) and has_consecutive_values(facts) else []
    names += ["MeasureValued"] if weak_derivative_obstacle(site) is None else []
    names = [f"`mcgrad.{name}()`" for name in names]
    if not names:
        return "Give it a `log_prob`, an `icdf` or a `support`, see `mcgrad.distribution`."
    return f"Use {', '.join(names[:-1]) + ' or ' if names[1:] else ''}{names[-1]} here."


def missing_score(site: Site, misses: str = "the score misses") -> str | None:
    """Why an estimator that holds draws fixed and weights them would be wrong, and the way out."""
    facts = site.facts
    if "log_prob" not in facts.knows:
        return f"the law has no log density. Give it one, `mcgrad.distribution(..., log_prob=...)`. {instead(site)}"
    if facts.support_parameters:
        moving = " and ".join(f"`{name}`" for name in facts.support_parameters)
        return (
            f"the support moves with {moving}, so {misses} what happens at its edge. "
            f"{instead(site)} Or shift and scale a draw with constant bounds."
        )
    return None


def is_law_of_integers(facts: Facts) -> bool:
    """Whether a draw is an integer, with a `cdf` and a probability."""
    return facts.discrete and facts.scalar_event and "cdf" in facts.knows and "log_prob" in facts.knows


def has_consecutive_values(facts: Facts) -> bool:
    """Whether there is no gap between the values of a law of integers."""
    return facts.support is None or bool(np.all(np.diff(np.sort(facts.support)) == 1))
