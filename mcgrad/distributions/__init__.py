"""Distributions, and what estimators need to know of them.

The distributions themselves, their base class `Distribution` and the functions `distribution`, `bijection` and
`implicit_reparameterization` are in `mcgrad` too. The names below are public as well, for distributions of your own (the page
`notebooks/your_own_distribution.md` shows how); the files that they live in are not.

- The protocols, one for each thing that a distribution may know: `HasLogProb`, `HasProb`, `HasCdf`, `HasSurvival`, `HasIcdf`,
  `HasSupport`, `HasWeakDerivative`, `HasOptimalTransport`, `HasAdaptiveVelocity`, `HasNormalNoise`, `HasMoments`,
  `HasRelaxation`, `HasMarginals`; and `knows`, which asks a distribution for one of them.
- What their methods take and return: `Coupling`, `WeakDerivative`, `Relaxation`.
- The values that parameters may take: a `Domain` of your own, or `REAL`, `POSITIVE`, `NONNEGATIVE`, `PROBABILITY`, `LOG_ODDS`; and
  `check_one_of`, for alternative parameters such as logits and probabilities.
- Numerics: `open_uniform`, noise for a quantile function; `align`, for arrays of several ranks; `quotient`, a division whose
  derivative does not overflow.
- Derivatives of draws: `moving_draw`, from the velocity of a quantile, beside `implicit_reparameterization`.
- Others' distributions: `as_distribution`, which brings them under the protocol; `pathwise_obstacle`, why draws of one have no
  pathwise derivative; `FunctionDistribution`, the base of what `distribution` makes.
"""

from mcgrad import _stub

__getattr__, __dir__, __all__ = _stub.attach(__name__, __file__)
