"""The published toy of the benchmark, in small."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import mcgrad
from benchmarks import categorical_toy


@pytest.mark.slow
def test_a_set_beats_leave_one_out_where_classes_repeat():
    problem = categorical_toy.toy(3.0, jax.random.key(0))
    estimators = (mcgrad.UnorderedSet(4), mcgrad.Score(num_samples=4))
    with jax.debug_key_reuse(False):
        of_set, leave_one_out = (categorical_toy.measurement(e, 8000)(problem, jax.random.key(1)) for e in estimators)
    assert of_set.deviation < 3 and leave_one_out.deviation < 3
    assert of_set.variance < 0.7 * leave_one_out.variance


def test_the_exact_gradient_is_that_of_enumeration():
    problem = categorical_toy.toy(1.0, jax.random.key(2))
    enumerated = jax.jit(
        jax.grad(
            lambda x: mcgrad.expectation(categorical_toy.cost)(x, problem.table, jax.random.key(0), mcgrad.Enumerate())
        )
    )(problem.logits)
    np.testing.assert_allclose(enumerated, categorical_toy.exact(problem), rtol=1e-9, atol=1e-12)
