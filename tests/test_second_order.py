"""Second derivatives of draws: the same number in every nesting of forward and reverse mode.

That one of these numbers is right is the matter of each law's own tests, against moments or quantiles.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributions import TWICE

import mcgrad


@pytest.mark.slow
@pytest.mark.parametrize("name", TWICE)
def test_every_nesting_gives_the_same(name):
    case = TWICE[name]

    def value(p, key):
        x = mcgrad.sample(key, case.make(p), case.path)
        return jnp.sum(jnp.sin(x) * (1 + jnp.arange(x.size).reshape(x.shape)))

    estimate = mcgrad.expectation(value)
    modes = (jax.jacfwd, jax.jacrev)

    @jax.jit
    def hessians(p, key):
        f = lambda p: estimate(p, key)  # noqa: E731
        return jnp.stack([outer(inner(f))(p) for inner in modes for outer in modes])

    with jax.debug_key_reuse(False):
        found = hessians(jnp.asarray([0.9, 1.6]), jax.random.key(1))
    assert jnp.any(found != 0)
    np.testing.assert_allclose(found, jnp.broadcast_to(found[0], found.shape), rtol=1e-9, atol=1e-11)
