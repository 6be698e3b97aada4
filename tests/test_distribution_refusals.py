"""What is no distribution is refused, with the argument, what it must be, and what it is."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (
            lambda: mcgrad.Normal(0.0, -1.0),
            ValueError,
            r"`mcgrad.Normal\(scale=...\)` must be positive .* got -1.0\. Pass",
        ),
        (lambda: mcgrad.Normal(0.0, jnp.asarray([1.0, 0.0])), ValueError, r"got 0.0 at index \(1,\)"),
        (lambda: mcgrad.Normal(0.0, np.nan), ValueError, r"scale=...\)` must be positive .* got nan"),
        (lambda: mcgrad.Normal(np.inf, 1.0), ValueError, r"loc=...\)` must be finite, got inf"),
        (lambda: mcgrad.Normal("0", 1.0), TypeError, r"loc=...\)` must be a real number or array, got str"),
        (lambda: mcgrad.Normal(["0"], 1.0), TypeError, r"must be a real number or array, got list"),
        (lambda: mcgrad.Normal(1j, 1.0), TypeError, r"must be a real number or array, got complex"),
        (lambda: mcgrad.Normal(jnp.ones(2) * 1j, 1.0), TypeError, r"must be a real number or array"),
        (
            lambda: mcgrad.Normal(jnp.ones(2), jnp.ones(3)),
            ValueError,
            r"batch shapes broadcast, got loc \(2,\), scale \(3,\)",
        ),
        (lambda: mcgrad.HalfNormal(0), ValueError, r"HalfNormal\(scale=...\)"),
        (lambda: mcgrad.LogNormal(0.0, -1), ValueError, r"LogNormal\(scale=...\)"),
        (lambda: mcgrad.Exponential(-1.0), ValueError, r"Exponential\(rate=...\)"),
        (lambda: mcgrad.Weibull(1.0, 0.0), ValueError, r"Weibull\(concentration=...\)"),
        (
            lambda: mcgrad.Uniform(1.0, 1.0),
            ValueError,
            r"Uniform\(high=...\)` must be above `low`, got low 1.0 and high 1.0",
        ),
        (lambda: mcgrad.Pareto(1.0, 0.0), ValueError, r"Pareto\(concentration=...\)` must be positive"),
        (lambda: mcgrad.Kumaraswamy(1.0, np.inf), ValueError, r"Kumaraswamy\(concentration0=...\)` must be positive"),
        (
            lambda: mcgrad.TruncatedNormal(0.0, 1.0, 2.0, 2.0),
            ValueError,
            r"TruncatedNormal\(high=...\)` must be above `low`, got low 2.0 and high 2.0",
        ),
        (lambda: mcgrad.TruncatedNormal(0.0, 1.0, np.nan, 2.0), ValueError, r"low=...\)` must not be NaN"),
        (lambda: mcgrad.Poisson(-1.0), ValueError, r"Poisson\(rate=...\)` must be at least zero"),
        (lambda: mcgrad.Poisson(1e12), ValueError, r"at most 2e9, got 1000000000000.0. .*mcgrad.Normal\(rate"),
        (lambda: mcgrad.Bernoulli(probs=1.5), ValueError, r"Bernoulli\(probs=...\)` must lie between 0 and 1, got 1.5"),
        (lambda: mcgrad.Bernoulli(logits=np.nan), ValueError, r"Bernoulli\(logits=...\)` must not be NaN"),
        (lambda: mcgrad.Bernoulli(), ValueError, r"exactly one of `logits=` or `probs=`, got neither"),
        (lambda: mcgrad.Bernoulli(logits=0.0, probs=0.5), ValueError, r"got `logits=` and `probs=`"),
        (lambda: mcgrad.Geometric(probs=0.0), ValueError, r"Geometric\(probs=...\)` must lie above 0"),
        (lambda: mcgrad.Geometric(logits=-np.inf), ValueError, r"Geometric\(logits=...\)` must be above -inf"),
        (lambda: mcgrad.Geometric(), ValueError, r"Geometric\(...\)` must get exactly one of"),
        (lambda: mcgrad.Binomial(2), ValueError, r"Binomial\(...\)` must get exactly one of"),
        (lambda: mcgrad.Binomial(-1, probs=0.5), ValueError, r"total_count=...\)` must be at least zero, got -1"),
        (lambda: mcgrad.Binomial(2.5, probs=0.5), TypeError, r"total_count=...\)` must be an integer"),
        (
            lambda: mcgrad.Binomial(jnp.ones(2, int), probs=jnp.ones(3)),
            ValueError,
            r"total_count \(2,\), probability \(3,\)",
        ),
        (lambda: mcgrad.Multinomial(2), ValueError, r"Multinomial\(...\)` must get exactly one of"),
        (
            lambda: mcgrad.Multinomial(-1, logits=jnp.zeros(2)),
            ValueError,
            r"Multinomial\(total_count=...\)` must be at least zero, got -1",
        ),
        (
            lambda: mcgrad.Multinomial(2.5, logits=jnp.zeros(2)),
            TypeError,
            r"Multinomial\(total_count=...\)` must be an integer",
        ),
        (
            lambda: mcgrad.Multinomial(jnp.ones(2, int), logits=jnp.zeros((3, 2))),
            ValueError,
            r"total_count \(2,\), probabilities \(3, 2\)",
        ),
        (
            lambda: mcgrad.Multinomial(2, probs=jnp.asarray([0.5, 0.6])),
            ValueError,
            r"Multinomial\(probs=...\)` must sum to 1",
        ),
        (lambda: mcgrad.NegativeBinomial(2.0), ValueError, r"NegativeBinomial\(...\)` must get exactly one of"),
        (
            lambda: mcgrad.NegativeBinomial(0.0, probs=0.5),
            ValueError,
            r"NegativeBinomial\(total_count=...\)` must be positive and finite, got 0.0",
        ),
        (
            lambda: mcgrad.NegativeBinomial(2.0, probs=1.0),
            ValueError,
            r"NegativeBinomial\(probs=...\)` must be at least 0 and below 1, got 1.0",
        ),
        (
            lambda: mcgrad.NegativeBinomial(2.0, logits=np.inf),
            ValueError,
            r"NegativeBinomial\(logits=...\)` must be below inf, got inf",
        ),
        (
            lambda: mcgrad.NegativeBinomial(jnp.ones(2), probs=jnp.ones(3) / 2),
            ValueError,
            r"total_count \(2,\), probs \(3,\)",
        ),
        (lambda: mcgrad.Categorical(probs=jnp.asarray([0.5, 0.6])), ValueError, r"must sum to 1 .* got a sum of 1.1"),
        (lambda: mcgrad.Categorical(probs=jnp.asarray([-0.5, 1.5])), ValueError, r"probs=...\)` must be at least zero"),
        (lambda: mcgrad.Categorical(logits=0.0), ValueError, r"must have at least 1 axes, got shape \(\)"),
        (lambda: mcgrad.Categorical(logits=jnp.zeros((2, 0))), ValueError, r"at least one class, got shape \(2, 0\)"),
        (lambda: mcgrad.Categorical(logits=jnp.asarray([0.0, np.inf])), ValueError, r"must be finite or -inf, got inf"),
        (lambda: mcgrad.OneHotCategorical(logits=jnp.full(2, -np.inf)), ValueError, r"at least one class possible"),
        (lambda: mcgrad.OneHotCategorical(), ValueError, r"OneHotCategorical\(...\)` must get exactly one of"),
        (lambda: mcgrad.MultivariateNormal(jnp.zeros(2)), ValueError, r"`scale_tril=` or `scale_diag=`, got neither"),
        (
            lambda: mcgrad.MultivariateNormal(jnp.zeros(2), scale_tril=jnp.eye(3)),
            ValueError,
            r"must end with shape \(2, 2\)",
        ),
        (
            lambda: mcgrad.MultivariateNormal(jnp.zeros(2), scale_diag=jnp.ones(3)),
            ValueError,
            r"must end with shape \(2,\)",
        ),
        (lambda: mcgrad.MultivariateNormal(jnp.zeros(2), scale_tril=jnp.ones((2, 2))), ValueError, r"lower triangular"),
        (lambda: mcgrad.MultivariateNormal(jnp.zeros(2), scale_tril=-jnp.eye(2)), ValueError, r"positive diagonal"),
        (
            lambda: mcgrad.MultivariateStudentT(3.0, jnp.zeros(2), jnp.eye(3)),
            ValueError,
            r"MultivariateStudentT\(scale_tril=...\)` must end with shape \(2, 2\) for a `loc` of shape \(2,\)",
        ),
        (
            lambda: mcgrad.MultivariateStudentT(0.0, jnp.zeros(2), jnp.eye(2)),
            ValueError,
            r"MultivariateStudentT\(df=...\)` must be positive",
        ),
        (
            lambda: mcgrad.MultivariateStudentT(1.0, jnp.zeros(2), -jnp.eye(2)),
            ValueError,
            r"MultivariateStudentT\(scale_tril=...\)` must be lower triangular with a positive diagonal, got \[\[-1.0",
        ),
        (
            lambda: mcgrad.Wishart(2.0, jnp.eye(3)),
            ValueError,
            r"Wishart\(concentration=...\)` must be above d - 1 = 2, got 2.0",
        ),
        (lambda: mcgrad.Wishart(np.nan, jnp.eye(1)), ValueError, r"Wishart\(concentration=...\)` must be positive"),
        (
            lambda: mcgrad.Wishart(3.0, jnp.ones((2, 2))),
            ValueError,
            r"Wishart\(scale_tril=...\)` must be lower triangular",
        ),
        (
            lambda: mcgrad.Wishart(3.0, jnp.ones((2, 3))),
            ValueError,
            r"scale_tril=...\)` must be square, got shape \(2, 3\)",
        ),
        (
            lambda: mcgrad.LKJCholesky(1, 1.0),
            ValueError,
            r"LKJCholesky\(dim=...\)` must be a whole number above one, got 1",
        ),
        (lambda: mcgrad.LKJCholesky(3, 0.0), ValueError, r"LKJCholesky\(concentration=...\)` must be positive"),
        (
            lambda: mcgrad.Independent(mcgrad.Normal(0.0, 1.0), 1),
            ValueError,
            r"between 0 and 0 for batch shape \(\), got 1",
        ),
        (lambda: mcgrad.Independent(3.0, 1), TypeError, r"must be a distribution, got float"),
    ],
)
def test_what_is_no_law_is_refused(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()
