"""Distributions, and what estimators need to know of them."""

from mcgrad.distributions.base import Coupling as Coupling
from mcgrad.distributions.base import Distribution as Distribution
from mcgrad.distributions.base import WeakDerivative as WeakDerivative
from mcgrad.distributions.bernoulli import Bernoulli as Bernoulli
from mcgrad.distributions.categorical import Categorical as Categorical
from mcgrad.distributions.categorical import OneHotCategorical as OneHotCategorical
from mcgrad.distributions.counts import Binomial as Binomial
from mcgrad.distributions.counts import Geometric as Geometric
from mcgrad.distributions.counts import Poisson as Poisson
from mcgrad.distributions.foreign import as_distribution as as_distribution
from mcgrad.distributions.functions import FunctionDistribution as FunctionDistribution
from mcgrad.distributions.functions import distribution as distribution
from mcgrad.distributions.implicit import implicit_reparameterization as implicit_reparameterization
from mcgrad.distributions.independent import Independent as Independent
from mcgrad.distributions.location_scale import Cauchy as Cauchy
from mcgrad.distributions.location_scale import Gumbel as Gumbel
from mcgrad.distributions.location_scale import Laplace as Laplace
from mcgrad.distributions.location_scale import Logistic as Logistic
from mcgrad.distributions.multivariate_normal import MultivariateNormal as MultivariateNormal
from mcgrad.distributions.normal import HalfNormal as HalfNormal
from mcgrad.distributions.normal import LogNormal as LogNormal
from mcgrad.distributions.normal import Normal as Normal
from mcgrad.distributions.obstacle import pathwise_obstacle as pathwise_obstacle
from mcgrad.distributions.positive import Exponential as Exponential
from mcgrad.distributions.positive import Weibull as Weibull
from mcgrad.distributions.uniform import Uniform as Uniform
