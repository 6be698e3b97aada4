"""flowjax and distreqx: modules with `sample` and `log_prob`, as the parameters of `mcgrad.distribution`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad

Made = mcgrad.distribution(
    sampler=lambda key, dist: dist.sample(key), log_prob=lambda x, dist: dist.log_prob(x), event_ndim=None
)


def test_a_flow_is_differentiated_along_its_path():
    pytest.importorskip("flowjax")
    from equinox import combine, is_inexact_array, partition
    from flowjax.distributions import StandardNormal
    from flowjax.flows import masked_autoregressive_flow

    flow = masked_autoregressive_flow(
        jax.random.key(1), base_dist=StandardNormal((2,)), flow_layers=2, nn_width=8, nn_depth=1
    )
    arrays, static = partition(flow, is_inexact_array)

    def program(arrays, key):
        flow = combine(arrays, static)
        x = mcgrad.sample(key, Made(flow))
        return jnp.sum(x**2) + flow.log_prob(x)

    def plain(arrays, key):
        flow = combine(arrays, static)
        x = flow.sample(key)
        return jnp.sum(x**2) + flow.log_prob(x)

    found, wanted = jax.jit(lambda key: (mcgrad.grad(program)(arrays, key), jax.grad(plain)(arrays, key)))(
        jax.random.key(2)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, wanted)


def test_distributions_of_distreqx():
    distreqx = pytest.importorskip("distreqx.distributions")

    def program(loc, key):
        return jnp.sum(mcgrad.sample(key, Made(distreqx.Normal(loc, jnp.ones(2)))) ** 2)

    key, loc = jax.random.key(0), jnp.asarray([0.5, -1.0])
    wanted = jax.grad(lambda loc: jnp.sum(distreqx.Normal(loc, jnp.ones(2)).sample(key) ** 2))(loc)
    np.testing.assert_allclose(mcgrad.grad(program)(loc, key), wanted, rtol=1e-5)
    with pytest.raises(TypeError, match="`reparameterized` too, got Normal. Pass `Made"):
        mcgrad.sample(key, distreqx.Normal(loc, jnp.ones(2)))
