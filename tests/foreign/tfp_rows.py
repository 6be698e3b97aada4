"""The distributions of TFP-on-JAX."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp


def rows() -> dict[str, Any]:
    """One row a name; `p` is 1."""
    import tensorflow_probability.substrates.jax as tfp

    tfd, tfb = tfp.distributions, tfp.bijectors
    kernels, operators = tfp.math.psd_kernels, tfp.tf2jax.linalg
    logits, probs = jnp.asarray([0.3, -0.5, 0.1]), jnp.asarray([0.5, 0.2, 0.3])
    tril, two = jnp.asarray([[1.0, 0.0], [0.4, 0.8]]), jnp.asarray([0.5, -0.3])
    covariance, unit = tril @ tril.T, jnp.asarray([0.6, 0.0, 0.8])
    points, seen = jnp.asarray([[0.0], [0.7]]), jnp.asarray([[1.5]])

    def operator() -> Any:
        return operators.LinearOperatorLowerTriangular(tril)

    def kernel(p: Any) -> Any:
        return kernels.ExponentiatedQuadratic(1.0 * p, 0.8)

    def coroutine(p: Any) -> Any:
        def model() -> Any:
            x = yield tfd.JointDistributionCoroutine.Root(tfd.Normal(0.3 * p, 1.0))
            yield tfd.Normal(x, 0.7)

        return model

    def markov(p: Any) -> Any:
        return tfd.MarkovChain(tfd.Normal(0.3 * p, 1.0), lambda _, x: tfd.Normal(0.5 * x, 0.7), num_steps=3)

    return {
        "AutoCompositeTensorDistribution": "a base class",
        "Autoregressive": lambda p: tfd.Autoregressive(
            lambda x: tfd.Independent(
                tfd.Normal(jnp.asarray([0.3 * p, 0.0]) + jnp.asarray([[0.0, 0.0], [0.5, 0.0]]) @ x, 1.0), 1
            ),
            sample0=jnp.zeros(2),
            num_steps=2,
        ),
        "BatchBroadcast": lambda p: tfd.BatchBroadcast(tfd.Normal(0.3 * p, 1.0), [3]),
        "BatchConcat": lambda p: tfd.BatchConcat([tfd.Normal(p * two, 1.0), tfd.Normal(jnp.zeros(1), 2.0)], axis=0),
        "BatchReshape": lambda p: tfd.BatchReshape(tfd.Normal(p * jnp.ones(4), 1.0), [2, 2]),
        "Bates": lambda p: tfd.Bates(3.0, 0.3 * p, 1.3),
        "Bernoulli": lambda p: tfd.Bernoulli(logits=0.4 * p),
        "Bernoulli, probs": lambda p: tfd.Bernoulli(probs=0.3 * p),
        "Beta": lambda p: tfd.Beta(1.4 * p, 2.3),
        "BetaBinomial": lambda p: tfd.BetaBinomial(6.0, 1.4 * p, 2.3),
        "BetaQuotient": lambda p: tfd.BetaQuotient(2.4 * p, 2.3, 3.1, 1.7),
        "Binomial": lambda p: tfd.Binomial(5.0, probs=0.3 * p),
        "Blockwise": lambda p: tfd.Blockwise([tfd.Normal(0.3 * p, 1.0), tfd.Gamma(2.0, 1.0)]),
        "Categorical": lambda p: tfd.Categorical(logits=p * logits),
        "Categorical, probs": lambda p: tfd.Categorical(probs=probs + (p - 1) * jnp.asarray([0.1, -0.1, 0.0])),
        "Cauchy": lambda p: tfd.Cauchy(0.3 * p, 1.3),
        "Chi": lambda p: tfd.Chi(3.3 * p),
        "Chi2": lambda p: tfd.Chi2(3.3 * p),
        "CholeskyLKJ": lambda p: tfd.CholeskyLKJ(3, 1.7 * p),
        "ContinuousBernoulli": lambda p: tfd.ContinuousBernoulli(logits=0.9 * p),
        "DeterminantalPointProcess": lambda p: tfd.DeterminantalPointProcess(p * jnp.asarray([0.7, 1.5]), jnp.eye(2)),
        "Deterministic": lambda p: tfd.Deterministic(0.3 * p),
        "Dirichlet": lambda p: tfd.Dirichlet(p * jnp.asarray([1.2, 2.0, 3.1])),
        "DirichletMultinomial": lambda p: tfd.DirichletMultinomial(4.0, p * jnp.asarray([1.2, 2.0])),
        "Distribution": "the base class",
        "DoublesidedMaxwell": lambda p: tfd.DoublesidedMaxwell(0.3 * p, 1.3),
        "Empirical": lambda p: tfd.Empirical(p * jnp.asarray([0.5, 0.5, 1.5, 2.0])),
        "ExpGamma": lambda p: tfd.ExpGamma(1.4 * p, 0.7),
        "ExpInverseGamma": lambda p: tfd.ExpInverseGamma(1.4 * p, 0.7),
        "ExpRelaxedOneHotCategorical": lambda p: tfd.ExpRelaxedOneHotCategorical(0.8, logits=p * logits),
        "Exponential": lambda p: tfd.Exponential(1.3 * p),
        "ExponentiallyModifiedGaussian": lambda p: tfd.ExponentiallyModifiedGaussian(0.3 * p, 1.0, 1.3),
        "FiniteDiscrete": lambda p: tfd.FiniteDiscrete(jnp.asarray([0.5, 1.5, 2.5]), logits=p * logits),
        "FlatDirichlet": lambda p: tfd.FlatDirichlet([3]),
        "Gamma": lambda p: tfd.Gamma(1.4 * p, 0.7),
        "GammaGamma": lambda p: tfd.GammaGamma(2.4 * p, 3.0, 1.0),
        "GaussianProcess": lambda p: tfd.GaussianProcess(kernel(p), points, observation_noise_variance=0.1),
        "GaussianProcessRegressionModel": lambda p: tfd.GaussianProcessRegressionModel(
            kernel(p), points, seen, jnp.asarray([0.4]), observation_noise_variance=0.1
        ),
        "GeneralizedExtremeValue": lambda p: tfd.GeneralizedExtremeValue(0.3, 1.3 * p, 0.2),
        "GeneralizedNormal": lambda p: tfd.GeneralizedNormal(0.3 * p, 1.3, 1.6),
        "GeneralizedPareto": lambda p: tfd.GeneralizedPareto(0.3, 1.3 * p, 0.2),
        "Geometric": lambda p: tfd.Geometric(probs=0.3 * p),
        "Gumbel": lambda p: tfd.Gumbel(0.3 * p, 1.3),
        "HalfCauchy": lambda p: tfd.HalfCauchy(0.0, 1.3 * p),
        "HalfCauchy, loc": lambda p: tfd.HalfCauchy(0.3 * p, 1.3),
        "HalfNormal": lambda p: tfd.HalfNormal(1.3 * p),
        "HalfStudentT": lambda p: tfd.HalfStudentT(4.3 * p, 0.0, 1.3),
        "HiddenMarkovModel": lambda p: tfd.HiddenMarkovModel(
            tfd.Categorical(logits=two),
            tfd.Categorical(logits=jnp.asarray([[0.5, -0.5], [0.0, 0.4]])),
            tfd.Normal(p * two, 0.7),
            3,
        ),
        "Horseshoe": lambda p: tfd.Horseshoe(1.3 * p),
        "Independent": lambda p: tfd.Independent(tfd.Normal(p * two, 1.3), 1),
        "Independent, discrete": lambda p: tfd.Independent(tfd.Poisson(p * jnp.asarray([0.5, 2.0])), 1),
        "Inflated": lambda p: tfd.Inflated(tfd.Poisson(2.0), inflated_loc_probs=0.4 * p),
        "Inflated, continuous": lambda p: tfd.Inflated(tfd.Normal(0.3 * p, 1.0), inflated_loc_probs=0.4),
        "InverseGamma": lambda p: tfd.InverseGamma(2.4 * p, 0.7),
        "InverseGaussian": lambda p: tfd.InverseGaussian(1.4 * p, 2.3),
        "JohnsonSU": lambda p: tfd.JohnsonSU(0.3 * p, 1.4, 0.2, 1.3),
        "JointDistribution": "a base class",
        "JointDistributionCoroutine": lambda p: tfd.JointDistributionCoroutine(coroutine(p)),
        "JointDistributionCoroutineAutoBatched": lambda p: tfd.JointDistributionCoroutineAutoBatched(coroutine(p)),
        "JointDistributionNamed": lambda p: tfd.JointDistributionNamed(
            {"a": tfd.Normal(0.3 * p, 1.0), "b": lambda a: tfd.Normal(a, 0.7)}
        ),
        "JointDistributionNamedAutoBatched": lambda p: tfd.JointDistributionNamedAutoBatched(
            {"a": tfd.Normal(0.3 * p, 1.0), "b": lambda a: tfd.Normal(a, 0.7)}
        ),
        "JointDistributionSequential": lambda p: tfd.JointDistributionSequential(
            [tfd.Normal(0.3 * p, 1.0), lambda a: tfd.Normal(a, 0.7)]
        ),
        "JointDistributionSequential, independent": lambda p: tfd.JointDistributionSequential(
            [tfd.Normal(0.3 * p, 1.0), tfd.Bernoulli(logits=0.4 * p)]
        ),
        "JointDistributionSequentialAutoBatched": lambda p: tfd.JointDistributionSequentialAutoBatched(
            [tfd.Normal(0.3 * p, 1.0), lambda a: tfd.Normal(a, 0.7)]
        ),
        "Kumaraswamy": lambda p: tfd.Kumaraswamy(1.4 * p, 2.3),
        "LKJ": lambda p: tfd.LKJ(3, 1.7 * p),
        "LambertWDistribution": lambda p: tfd.LambertWDistribution(
            tfd.Normal(0.3 * p, 1.0), shift=0.1, scale=1.2, tailweight=0.2
        ),
        "LambertWNormal": lambda p: tfd.LambertWNormal(0.3 * p, 1.2, 0.2),
        "Laplace": lambda p: tfd.Laplace(0.3 * p, 1.3),
        "LinearGaussianStateSpaceModel": lambda p: tfd.LinearGaussianStateSpaceModel(
            2,
            operators.LinearOperatorFullMatrix(0.7 * p * jnp.eye(1)),
            tfd.MultivariateNormalDiag(jnp.zeros(1), jnp.ones(1)),
            operators.LinearOperatorFullMatrix(jnp.eye(1)),
            tfd.MultivariateNormalDiag(jnp.zeros(1), 0.5 * jnp.ones(1)),
            tfd.MultivariateNormalDiag(jnp.zeros(1), jnp.ones(1)),
        ),
        "LogLogistic": lambda p: tfd.LogLogistic(0.3 * p, 0.7),
        "LogNormal": lambda p: tfd.LogNormal(0.3 * p, 0.8),
        "Logistic": lambda p: tfd.Logistic(0.3 * p, 1.3),
        "LogitNormal": lambda p: tfd.LogitNormal(0.3 * p, 1.3),
        "MarkovChain": markov,
        "Masked": lambda p: tfd.Masked(tfd.Normal(p * two, 1.3), jnp.asarray([True, False])),
        "MatrixNormalLinearOperator": lambda p: tfd.MatrixNormalLinearOperator(
            p * jnp.ones((2, 2)), operator(), operator()
        ),
        "MatrixTLinearOperator": lambda p: tfd.MatrixTLinearOperator(4.3 * p, jnp.ones((2, 2)), operator(), operator()),
        "Mixture": lambda p: tfd.Mixture(
            tfd.Categorical(logits=p * two), [tfd.Normal(-1.0, 0.7), tfd.Laplace(1.0, 0.5)]
        ),
        "MixtureSameFamily": lambda p: tfd.MixtureSameFamily(
            tfd.Categorical(logits=p * two), tfd.Normal(jnp.asarray([-1.0, 1.0]), 0.7)
        ),
        "MixtureSameFamily, reparameterized": lambda p: tfd.MixtureSameFamily(
            tfd.Categorical(logits=p * two), tfd.Normal(jnp.asarray([-1.0, 1.0]), 0.7), reparameterize=True
        ),
        "Moyal": lambda p: tfd.Moyal(0.3 * p, 1.3),
        "Multinomial": lambda p: tfd.Multinomial(4.0, logits=p * logits),
        "MultivariateNormalDiag": lambda p: tfd.MultivariateNormalDiag(p * two, jnp.asarray([0.8, 1.3])),
        "MultivariateNormalDiagPlusLowRank": lambda p: tfd.MultivariateNormalDiagPlusLowRank(
            p * two, jnp.asarray([0.8, 1.3]), jnp.asarray([[0.5], [0.3]])
        ),
        "MultivariateNormalDiagPlusLowRankCovariance": lambda p: tfd.MultivariateNormalDiagPlusLowRankCovariance(
            p * two, jnp.asarray([0.8, 1.3]), jnp.asarray([[0.5], [0.3]])
        ),
        "MultivariateNormalFullCovariance": lambda p: tfd.MultivariateNormalFullCovariance(p * two, covariance),
        "MultivariateNormalLinearOperator": lambda p: tfd.MultivariateNormalLinearOperator(p * two, operator()),
        "MultivariateNormalTriL": lambda p: tfd.MultivariateNormalTriL(two, tril * p),
        "MultivariateStudentTLinearOperator": lambda p: tfd.MultivariateStudentTLinearOperator(
            4.3 * p, two, operator()
        ),
        "NegativeBinomial": lambda p: tfd.NegativeBinomial(3.0, logits=0.4 * p),
        "NoncentralChi2": lambda p: tfd.NoncentralChi2(3.3 * p, 1.2),
        "Normal": lambda p: tfd.Normal(0.3 * p, 1.3),
        "Normal, numbers": lambda p: tfd.Normal(0.3, 1.3),
        "Normal, 16 bits": lambda p: tfd.Normal(jnp.asarray(0.3 * p, jnp.bfloat16), jnp.asarray(1.3, jnp.bfloat16)),
        "NormalInverseGaussian": lambda p: tfd.NormalInverseGaussian(0.3 * p, 1.3, 1.4, 0.3),
        "OneHotCategorical": lambda p: tfd.OneHotCategorical(logits=p * logits),
        "OrderedLogistic": lambda p: tfd.OrderedLogistic(jnp.asarray([-1.0, 0.5]), 0.3 * p),
        "PERT": lambda p: tfd.PERT(0.3, 1.0, 2.3 * p),
        "Pareto": lambda p: tfd.Pareto(2.3 * p, 0.7),
        "PlackettLuce": lambda p: tfd.PlackettLuce(p * jnp.asarray([0.5, 1.2, 0.9])),
        "Poisson": lambda p: tfd.Poisson(2.3 * p),
        "PoissonLogNormalQuadratureCompound": lambda p: tfd.PoissonLogNormalQuadratureCompound(0.3 * p, 0.5),
        "PowerSpherical": lambda p: tfd.PowerSpherical(unit, 2.3 * p),
        "ProbitBernoulli": lambda p: tfd.ProbitBernoulli(0.4 * p),
        "QuantizedDistribution": lambda p: tfd.QuantizedDistribution(tfd.Normal(0.3 * p, 1.7), low=-2.0, high=3.0),
        "QuantizedDistribution, no bounds": lambda p: tfd.QuantizedDistribution(tfd.Normal(0.3 * p, 1.7)),
        "RelaxedBernoulli": lambda p: tfd.RelaxedBernoulli(0.8, logits=0.4 * p),
        "RelaxedOneHotCategorical": lambda p: tfd.RelaxedOneHotCategorical(0.8, logits=p * logits),
        "Sample": lambda p: tfd.Sample(tfd.Normal(0.3 * p, 1.3), 3),
        "SigmoidBeta": lambda p: tfd.SigmoidBeta(1.4 * p, 2.3),
        "SinhArcsinh": lambda p: tfd.SinhArcsinh(0.3 * p, 1.3, 0.2, 1.1),
        "Skellam": lambda p: tfd.Skellam(1.3 * p, 2.1),
        "SphericalUniform": lambda p: tfd.SphericalUniform(3),
        "StoppingRatioLogistic": lambda p: tfd.StoppingRatioLogistic(jnp.asarray([-1.0, 0.5]), 0.3 * p),
        "StudentT": lambda p: tfd.StudentT(4.3 * p, 0.3, 1.3),
        "StudentTProcess": lambda p: tfd.StudentTProcess(4.3, kernel(p), points, observation_noise_variance=0.1),
        "StudentTProcessRegressionModel": lambda p: tfd.StudentTProcessRegressionModel(
            4.3, kernel(p), points, seen, jnp.asarray([0.4]), observation_noise_variance=0.1
        ),
        "TransformedDistribution": lambda p: tfd.TransformedDistribution(tfd.Normal(0.3 * p, 0.8), tfb.Exp()),
        "TransformedDistribution, affine": lambda p: tfd.TransformedDistribution(
            tfd.Normal(0.3, 0.8), tfb.Shift(0.3 * p)(tfb.Scale(2.0))
        ),
        "TransformedDistribution, inline": lambda p: tfd.TransformedDistribution(
            tfd.Normal(0.3 * p, 0.8),
            tfb.Inline(
                jnp.sinh,
                jnp.arcsinh,
                forward_log_det_jacobian_fn=lambda x: jnp.log(jnp.cosh(x)),
                forward_min_event_ndims=0,
            ),
        ),
        "TransformedDistribution, inline, closed over": lambda p: tfd.TransformedDistribution(
            tfd.Normal(0.3, 0.8),
            tfb.Inline(
                lambda x: p * jnp.sinh(x),
                lambda y: jnp.arcsinh(y / p),
                forward_log_det_jacobian_fn=lambda x: jnp.log(p * jnp.cosh(x)),
                forward_min_event_ndims=0,
            ),
        ),
        "TransformedDistribution, flow": lambda p: tfd.TransformedDistribution(
            tfd.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2)),
            tfb.RealNVP(1, shift_and_log_scale_fn=lambda x, n, **_: (0.5 * p * x, 0.3 * jnp.tanh(x))),
        ),
        "Triangular": lambda p: tfd.Triangular(0.3, 2.3, 1.2 * p),
        "TruncatedCauchy": lambda p: tfd.TruncatedCauchy(0.3 * p, 1.0, -0.5, 1.5),
        "TruncatedNormal": lambda p: tfd.TruncatedNormal(0.3 * p, 1.0, -0.5, 1.5),
        "TwoPieceNormal": lambda p: tfd.TwoPieceNormal(0.3 * p, 1.3, 1.4),
        "TwoPieceStudentT": lambda p: tfd.TwoPieceStudentT(4.3 * p, 0.3, 1.3, 1.4),
        "Uniform": lambda p: tfd.Uniform(0.3 * p, 1.3),
        "VariationalGaussianProcess": lambda p: tfd.VariationalGaussianProcess(
            kernel(p), points, seen, jnp.asarray([0.3]), jnp.asarray([[0.5]]), observation_noise_variance=0.1
        ),
        "VectorDeterministic": lambda p: tfd.VectorDeterministic(p * two),
        "VonMises": lambda p: tfd.VonMises(0.3 * p, 1.3),
        "VonMisesFisher": lambda p: tfd.VonMisesFisher(unit, 2.3 * p),
        "Weibull": lambda p: tfd.Weibull(1.7 * p, 1.3),
        "WishartLinearOperator": lambda p: tfd.WishartLinearOperator(4.3 * p, operator()),
        "WishartTriL": lambda p: tfd.WishartTriL(4.3 * p, tril),
        "ZeroInflatedNegativeBinomial": lambda p: tfd.ZeroInflatedNegativeBinomial(
            inflated_loc_probs=0.3, total_count=3.0, logits=0.4 * p
        ),
        "Zipf": lambda p: tfd.Zipf(3.3 * p),
    }
