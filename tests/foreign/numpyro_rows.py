"""NumPyro's distributions."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np


def rows() -> dict[str, Any]:
    """One row a name; `p` is 1."""
    import numpyro.distributions as nd
    from numpyro.distributions import constraints, transforms

    logits, probs = jnp.asarray([0.3, -0.5, 0.1]), jnp.asarray([0.5, 0.2, 0.3])
    tilt = jnp.asarray([0.1, -0.1, 0.0])  # weights still add up to one
    tril = jnp.asarray([[1.0, 0.0], [0.4, 0.8]])
    covariance, correlation = tril @ tril.T, jnp.asarray([[1.0, 0.3], [0.3, 1.0]])
    two = jnp.asarray([0.5, -0.3])

    def mixed(p: Any) -> Any:
        return nd.Categorical(logits=p * logits[:2])

    return {
        "AsymmetricLaplace": lambda p: nd.AsymmetricLaplace(0.3 * p, 0.8, 1.4),
        "AsymmetricLaplaceQuantile": lambda p: nd.AsymmetricLaplaceQuantile(0.3 * p, 0.8, 0.4),
        "Bernoulli": lambda p: nd.Bernoulli(probs=0.3 * p),
        "BernoulliLogits": lambda p: nd.BernoulliLogits(0.4 * p),
        "BernoulliProbs": lambda p: nd.BernoulliProbs(0.3 * p),
        "Beta": lambda p: nd.Beta(1.4 * p, 2.3),
        "Beta, numbers": lambda p: nd.Beta(1.4, 2.3),
        "BetaBinomial": lambda p: nd.BetaBinomial(1.4 * p, 2.3, 6),
        "BetaNegativeBinomial": lambda p: nd.BetaNegativeBinomial(4.0 * p, 2.3, 3.0),
        "BetaProportion": lambda p: nd.BetaProportion(0.4 * p, 3.3),
        "Binomial": lambda p: nd.Binomial(5, probs=0.3 * p),
        "BinomialLogits": lambda p: nd.BinomialLogits(0.4 * p, 5),
        "BinomialProbs": lambda p: nd.BinomialProbs(0.3 * p, 5),
        "CAR": lambda p: nd.CAR(
            p * jnp.asarray([0.3, -0.2, 0.1]), 0.4, 1.5, jnp.asarray([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])
        ),
        "Categorical": lambda p: nd.Categorical(probs=probs + (p - 1) * tilt),
        "CategoricalLogits": lambda p: nd.CategoricalLogits(p * logits),
        "CategoricalProbs": lambda p: nd.CategoricalProbs(probs + (p - 1) * tilt),
        "Cauchy": lambda p: nd.Cauchy(0.3 * p, 1.3),
        "Chi2": lambda p: nd.Chi2(3.3 * p),
        "CirculantNormal": lambda p: nd.CirculantNormal(
            p * jnp.asarray([0.3, 0.1, -0.2]), jnp.asarray([1.5, 0.3, 0.3])
        ),
        "Dagum": lambda p: nd.Dagum(1.4 * p, 2.3, 0.9),
        "Delta": lambda p: nd.Delta(0.4 * p),
        "Delta, numbers": lambda p: nd.Delta(0.4),
        "Dirichlet": lambda p: nd.Dirichlet(p * jnp.asarray([1.2, 2.0, 3.1])),
        "DirichletMultinomial": lambda p: nd.DirichletMultinomial(p * jnp.asarray([1.2, 2.0]), 4),
        "DiscreteUniform": lambda p: nd.DiscreteUniform(2, 6),
        "Distribution": "the base class",
        "DoublyTruncatedPowerLaw": lambda p: nd.DoublyTruncatedPowerLaw(-1.5 * p, 0.5, 3.0),
        "EulerMaruyama": lambda p: nd.EulerMaruyama(
            jnp.asarray([0.0, 0.2, 0.4]), lambda x, t: (-0.5 * x, jnp.full(jnp.shape(x), 0.6)), nd.Normal(0.3 * p, 1.0)
        ),
        "EulerMaruyama, closed over": lambda p: nd.EulerMaruyama(
            jnp.asarray([0.0, 0.2, 0.4]), lambda x, t: (-p * x, jnp.full(jnp.shape(x), 0.6)), nd.Normal(0.3, 1.0)
        ),
        "ExpandedDistribution": lambda p: nd.Normal(0.3 * p, 1.3).expand([3]),
        "ExpandedDistribution, discrete": lambda p: nd.Bernoulli(logits=0.3 * p).expand([3]),
        "Exponential": lambda p: nd.Exponential(1.3 * p),
        "FoldedDistribution": lambda p: nd.FoldedDistribution(nd.Normal(0.3 * p, 1.3)),
        "Gamma": lambda p: nd.Gamma(1.4 * p, 0.7),
        "GammaPoisson": lambda p: nd.GammaPoisson(2.3 * p, 1.2),
        "GaussianCopula": lambda p: nd.GaussianCopula(nd.Gamma(2.0 * p, jnp.asarray([1.0, 2.0])), correlation),
        "GaussianCopulaBeta": lambda p: nd.GaussianCopulaBeta(2.0 * p, jnp.asarray([1.5, 2.0]), correlation),
        "GaussianRandomWalk": lambda p: nd.GaussianRandomWalk(0.7 * p, 3),
        "GaussianStateSpace": lambda p: nd.GaussianStateSpace(2, 0.7 * p * jnp.eye(2), covariance),
        "Geometric": lambda p: nd.Geometric(probs=0.3 * p),
        "GeometricLogits": lambda p: nd.GeometricLogits(0.4 * p),
        "GeometricProbs": lambda p: nd.GeometricProbs(0.3 * p),
        "Gompertz": lambda p: nd.Gompertz(0.8 * p, 1.3),
        "Gumbel": lambda p: nd.Gumbel(0.3 * p, 1.3),
        "HalfCauchy": lambda p: nd.HalfCauchy(1.3 * p),
        "HalfNormal": lambda p: nd.HalfNormal(1.3 * p),
        "HurdleDistribution": lambda p: nd.HurdleDistribution(nd.Poisson(2.0 * p), gate=0.4),
        "HurdleGamma": lambda p: nd.HurdleGamma(0.4 * p, 2.0, 1.0),
        "HurdleLogNormal": lambda p: nd.HurdleLogNormal(0.4 * p, 0.2, 0.7),
        "HurdleLogits": lambda p: nd.HurdleLogits(nd.Poisson(2.0 * p), 0.4),
        "HurdleNegativeBinomial2": lambda p: nd.HurdleNegativeBinomial2(0.4 * p, 2.0, 1.5),
        "HurdlePoisson": lambda p: nd.HurdlePoisson(0.4 * p, 2.0),
        "HurdleProbs": lambda p: nd.HurdleProbs(nd.Poisson(2.0), 0.4 * p),
        "ImproperUniform": lambda p: nd.ImproperUniform(constraints.real, (), ()),
        "Independent": lambda p: nd.Normal(p * two, 1.3).to_event(1),
        "Independent, discrete": lambda p: nd.Bernoulli(logits=p * two).to_event(1),
        "IntervalCensoredDistribution": lambda p: nd.IntervalCensoredDistribution(
            nd.Normal(0.3 * p, 1.0), jnp.asarray(False), jnp.asarray(True)
        ),
        "InverseGamma": lambda p: nd.InverseGamma(2.4 * p, 0.7),
        "InverseWishart": lambda p: nd.InverseWishart(5.3 * p, scale_tril=tril),
        "InverseWishartCholesky": lambda p: nd.InverseWishartCholesky(5.3 * p, scale_tril=tril),
        "Kumaraswamy": lambda p: nd.Kumaraswamy(1.4 * p, 2.3),
        "LKJ": lambda p: nd.LKJ(3, 1.7 * p),
        "LKJCholesky": lambda p: nd.LKJCholesky(3, 1.7 * p),
        "LKJCholesky, cvine": lambda p: nd.LKJCholesky(3, 1.7 * p, sample_method="cvine"),
        "Laplace": lambda p: nd.Laplace(0.3 * p, 1.3),
        "LeftCensoredDistribution": lambda p: nd.LeftCensoredDistribution(nd.Normal(0.3 * p, 1.0), jnp.asarray(True)),
        "LeftTruncatedDistribution": lambda p: nd.LeftTruncatedDistribution(nd.Normal(0.3 * p, 1.0), -0.5),
        "LeftTruncatedGamma": lambda p: nd.LeftTruncatedGamma(nd.Gamma(2.0 * p, 1.0), 0.5),
        "Levy": lambda p: nd.Levy(0.3, 1.3 * p),
        "LogNormal": lambda p: nd.LogNormal(0.3 * p, 0.8),
        "LogUniform": lambda p: nd.LogUniform(0.5 * p, 3.0),
        "Logistic": lambda p: nd.Logistic(0.3 * p, 1.3),
        "LowRankMultivariateNormal": lambda p: nd.LowRankMultivariateNormal(
            p * two, jnp.asarray([[0.5], [0.3]]), jnp.ones(2)
        ),
        "LowerTruncatedPowerLaw": lambda p: nd.LowerTruncatedPowerLaw(-2.5 * p, 0.5),
        "MaskedDistribution": lambda p: nd.Normal(p * two, 1.3).mask(np.array([True, False])),
        "MaskedDistribution, inside": lambda p: nd.Normal(p * two, 1.3).mask(np.array([True, False])).to_event(1),
        "MatrixNormal": lambda p: nd.MatrixNormal(p * jnp.ones((2, 2)), tril, tril),
        "Mixture": lambda p: nd.Mixture(mixed(p), nd.Normal(jnp.asarray([-1.0, 1.0]), 0.7)),
        "MixtureGeneral": lambda p: nd.MixtureGeneral(mixed(p), [nd.Normal(-1.0, 0.7), nd.Laplace(1.0, 0.5)]),
        "MixtureGeneral, discrete": lambda p: nd.MixtureGeneral(mixed(p), [nd.Poisson(1.0), nd.Geometric(0.3)]),
        "MixtureSameFamily": lambda p: nd.MixtureSameFamily(mixed(1.0), nd.Normal(p * jnp.asarray([-1.0, 1.0]), 0.7)),
        "MixtureSameFamily, discrete": lambda p: nd.MixtureSameFamily(mixed(p), nd.Poisson(jnp.asarray([0.5, 3.0]))),
        "Multinomial": lambda p: nd.Multinomial(4, logits=p * logits),
        "MultinomialLogits": lambda p: nd.MultinomialLogits(p * logits, 4),
        "MultinomialProbs": lambda p: nd.MultinomialProbs(probs + (p - 1) * tilt, 4),
        "MultivariateNormal": lambda p: nd.MultivariateNormal(two, scale_tril=tril * p),
        "MultivariateNormal, covariance": lambda p: nd.MultivariateNormal(p * two, covariance_matrix=covariance),
        "MultivariateNormal, precision": lambda p: nd.MultivariateNormal(p * two, precision_matrix=covariance),
        "MultivariateStudentT": lambda p: nd.MultivariateStudentT(4.3 * p, two, tril),
        "NegativeBinomial": lambda p: nd.NegativeBinomial(2.3 * p, probs=0.4),
        "NegativeBinomial2": lambda p: nd.NegativeBinomial2(2.0 * p, 1.5),
        "NegativeBinomialLogits": lambda p: nd.NegativeBinomialLogits(2.3, 0.4 * p),
        "NegativeBinomialProbs": lambda p: nd.NegativeBinomialProbs(2.3, 0.4 * p),
        "Normal": lambda p: nd.Normal(0.3 * p, 1.3),
        "Normal, numbers": lambda p: nd.Normal(0.3, 1.3),
        "Normal, 16 bits": lambda p: nd.Normal(jnp.asarray(0.3 * p, jnp.bfloat16), jnp.asarray(1.3, jnp.bfloat16)),
        "OrderedLogistic": lambda p: nd.OrderedLogistic(0.3 * p, jnp.asarray([-1.0, 0.5])),
        "Pareto": lambda p: nd.Pareto(0.7, 2.3 * p),
        "Pareto, scale": lambda p: nd.Pareto(0.7 * p, 2.3),
        "Poisson": lambda p: nd.Poisson(2.3 * p),
        "ProjectedNormal": lambda p: nd.ProjectedNormal(p * jnp.asarray([0.5, -0.3, 1.0])),
        "RelaxedBernoulli": lambda p: nd.RelaxedBernoulli(jnp.asarray(0.8), logits=0.4 * p),
        "RelaxedBernoulliLogits": lambda p: nd.RelaxedBernoulliLogits(jnp.asarray(0.8), 0.4 * p),
        "RightCensoredDistribution": lambda p: nd.RightCensoredDistribution(nd.Normal(0.3 * p, 1.0), jnp.asarray(True)),
        "RightTruncatedDistribution": lambda p: nd.RightTruncatedDistribution(nd.Normal(0.3 * p, 1.0), 0.5),
        "RightTruncatedGamma": lambda p: nd.RightTruncatedGamma(nd.Gamma(2.0 * p, 1.0), 3.5),
        "SineBivariateVonMises": lambda p: nd.SineBivariateVonMises(0.3 * p, -0.2, 2.0, 1.5, correlation=0.5),
        "SineSkewed": lambda p: nd.SineSkewed(nd.VonMises(p * two, 1.3).to_event(1), jnp.asarray([0.2, 0.1])),
        "SoftLaplace": lambda p: nd.SoftLaplace(0.3 * p, 1.3),
        "StudentT": lambda p: nd.StudentT(4.3 * p, 0.3, 1.3),
        "TransformedDistribution": lambda p: nd.TransformedDistribution(
            nd.Normal(0.3 * p, 0.8), transforms.ExpTransform()
        ),
        "TransformedDistribution, affine": lambda p: nd.TransformedDistribution(
            nd.Normal(0.3, 0.8), transforms.AffineTransform(0.3 * p, 2.0)
        ),
        "TransformedDistribution, sigmoid of a Gamma": lambda p: nd.TransformedDistribution(
            nd.Gamma(2.0 * p, 1.0), [transforms.AffineTransform(0.0, -1.0), transforms.SigmoidTransform()]
        ),
        "TruncatedCauchy": lambda p: nd.TruncatedCauchy(0.3 * p, 1.0, low=-0.5),
        "TruncatedDistribution": lambda p: nd.TruncatedDistribution(nd.Laplace(0.3 * p, 1.0), low=-0.5, high=1.5),
        "TruncatedGamma": lambda p: nd.TruncatedGamma(2.0 * p, 1.0, low=0.5),
        "TruncatedNormal": lambda p: nd.TruncatedNormal(0.3 * p, 1.0, low=-0.5, high=1.5),
        "TruncatedPolyaGamma": lambda p: nd.TruncatedPolyaGamma(),
        "TwoSidedTruncatedDistribution": lambda p: nd.TwoSidedTruncatedDistribution(nd.Normal(0.3 * p, 1.0), -0.5, 1.5),
        "TwoSidedTruncatedGamma": lambda p: nd.TwoSidedTruncatedGamma(nd.Gamma(2.0 * p, 1.0), 0.5, 3.5),
        "Uniform": lambda p: nd.Uniform(0.3 * p, 1.3),
        "Unit": lambda p: nd.Unit(0.3 * p),
        "VonMises": lambda p: nd.VonMises(0.3 * p, 1.3),
        "Weibull": lambda p: nd.Weibull(1.3, 1.7 * p),
        "Wishart": lambda p: nd.Wishart(4.3 * p, scale_tril=tril),
        "WishartCholesky": lambda p: nd.WishartCholesky(4.3 * p, scale_tril=tril),
        "ZeroInflatedDistribution": lambda p: nd.ZeroInflatedDistribution(nd.Poisson(2.0 * p), gate=0.4),
        "ZeroInflatedLogits": lambda p: nd.ZeroInflatedLogits(nd.Poisson(2.0), 0.4 * p),
        "ZeroInflatedNegativeBinomial2": lambda p: nd.ZeroInflatedNegativeBinomial2(2.0 * p, 1.5, gate=0.4),
        "ZeroInflatedPoisson": lambda p: nd.ZeroInflatedPoisson(0.4 * p, 2.0),
        "ZeroInflatedProbs": lambda p: nd.ZeroInflatedProbs(nd.Poisson(2.0), 0.4 * p),
        "ZeroSumNormal": lambda p: nd.ZeroSumNormal(1.3 * p, (3,)),
    }
