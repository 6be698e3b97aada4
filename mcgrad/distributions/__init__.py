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

from mcgrad.distributions.ancestors import Residual as Residual
from mcgrad.distributions.ancestors import Stratified as Stratified
from mcgrad.distributions.ancestors import Systematic as Systematic
from mcgrad.distributions.ancestors import WithReplacement as WithReplacement
from mcgrad.distributions.base import Distribution as Distribution
from mcgrad.distributions.base import HasAdaptiveVelocity as HasAdaptiveVelocity
from mcgrad.distributions.base import HasCdf as HasCdf
from mcgrad.distributions.base import HasIcdf as HasIcdf
from mcgrad.distributions.base import HasLogProb as HasLogProb
from mcgrad.distributions.base import HasMarginals as HasMarginals
from mcgrad.distributions.base import HasMoments as HasMoments
from mcgrad.distributions.base import HasNormalNoise as HasNormalNoise
from mcgrad.distributions.base import HasOptimalTransport as HasOptimalTransport
from mcgrad.distributions.base import HasProb as HasProb
from mcgrad.distributions.base import HasRelaxation as HasRelaxation
from mcgrad.distributions.base import HasSupport as HasSupport
from mcgrad.distributions.base import HasSurvival as HasSurvival
from mcgrad.distributions.base import HasWeakDerivative as HasWeakDerivative
from mcgrad.distributions.base import Relaxation as Relaxation
from mcgrad.distributions.base import knows as knows
from mcgrad.distributions.bernoulli import Bernoulli as Bernoulli
from mcgrad.distributions.beta import Beta as Beta
from mcgrad.distributions.binomial import Binomial as Binomial
from mcgrad.distributions.categorical import Categorical as Categorical
from mcgrad.distributions.categorical import OneHotCategorical as OneHotCategorical
from mcgrad.distributions.cauchy import Cauchy as Cauchy
from mcgrad.distributions.checks import LOG_ODDS as LOG_ODDS
from mcgrad.distributions.checks import NONNEGATIVE as NONNEGATIVE
from mcgrad.distributions.checks import POSITIVE as POSITIVE
from mcgrad.distributions.checks import PROBABILITY as PROBABILITY
from mcgrad.distributions.checks import REAL as REAL
from mcgrad.distributions.checks import Domain as Domain
from mcgrad.distributions.checks import check_one_of as check_one_of
from mcgrad.distributions.chi2 import Chi2 as Chi2
from mcgrad.distributions.derivatives.implicit import implicit_reparameterization as implicit_reparameterization
from mcgrad.distributions.derivatives.pathwise_check import pathwise_obstacle as pathwise_obstacle
from mcgrad.distributions.derivatives.quantile_rules import moving_draw as moving_draw
from mcgrad.distributions.derivatives.weak_derivative import Coupling as Coupling
from mcgrad.distributions.derivatives.weak_derivative import WeakDerivative as WeakDerivative
from mcgrad.distributions.dirichlet import Dirichlet as Dirichlet
from mcgrad.distributions.exponential import Exponential as Exponential
from mcgrad.distributions.f import F as F
from mcgrad.distributions.gamma import ExpGamma as ExpGamma
from mcgrad.distributions.gamma import Gamma as Gamma
from mcgrad.distributions.geometric import Geometric as Geometric
from mcgrad.distributions.gumbel import Gumbel as Gumbel
from mcgrad.distributions.half_normal import HalfNormal as HalfNormal
from mcgrad.distributions.inverse_gamma import InverseGamma as InverseGamma
from mcgrad.distributions.inverse_gaussian import InverseGaussian as InverseGaussian
from mcgrad.distributions.kumaraswamy import Kumaraswamy as Kumaraswamy
from mcgrad.distributions.laplace import Laplace as Laplace
from mcgrad.distributions.lkj import LKJCholesky as LKJCholesky
from mcgrad.distributions.log_normal import LogNormal as LogNormal
from mcgrad.distributions.logistic import Logistic as Logistic
from mcgrad.distributions.multinomial import Multinomial as Multinomial
from mcgrad.distributions.multivariate_normal import MultivariateNormal as MultivariateNormal
from mcgrad.distributions.multivariate_student_t import MultivariateStudentT as MultivariateStudentT
from mcgrad.distributions.negative_binomial import NegativeBinomial as NegativeBinomial
from mcgrad.distributions.noncentral_chi2 import NoncentralChi2 as NoncentralChi2
from mcgrad.distributions.normal import Normal as Normal
from mcgrad.distributions.numerics.arithmetic import align as align
from mcgrad.distributions.numerics.arithmetic import open_uniform as open_uniform
from mcgrad.distributions.numerics.arithmetic import quotient as quotient
from mcgrad.distributions.pareto import Pareto as Pareto
from mcgrad.distributions.plackett_luce import PlackettLuce as PlackettLuce
from mcgrad.distributions.poisson import Poisson as Poisson
from mcgrad.distributions.student_t import StudentT as StudentT
from mcgrad.distributions.subset import Subset as Subset
from mcgrad.distributions.truncated_normal import TruncatedNormal as TruncatedNormal
from mcgrad.distributions.uniform import Uniform as Uniform
from mcgrad.distributions.von_mises import VonMises as VonMises
from mcgrad.distributions.von_mises_fisher import VonMisesFisher as VonMisesFisher
from mcgrad.distributions.weibull import Weibull as Weibull
from mcgrad.distributions.wishart import Wishart as Wishart
from mcgrad.distributions.wrappers.autoregressive import autoregressive as autoregressive
from mcgrad.distributions.wrappers.foreign import as_distribution as as_distribution
from mcgrad.distributions.wrappers.functions import FunctionDistribution as FunctionDistribution
from mcgrad.distributions.wrappers.functions import distribution as distribution
from mcgrad.distributions.wrappers.independent import Independent as Independent
from mcgrad.distributions.wrappers.mixture import Mixture as Mixture
from mcgrad.distributions.wrappers.transformed import Transformed as Transformed
from mcgrad.distributions.wrappers.transformed import bijection as bijection
