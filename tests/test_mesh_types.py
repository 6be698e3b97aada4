"""Every distribution, with each kind of estimator that it has, keeps what types of JAX tell of a mesh: the sharding of explicit
axes, and what differs from device to device in a `shard_map`.

Programs are traced only: types that do not fit are found so. Values are those of one device by the other tests on devices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributions import ORDINARY
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from on_devices import MARKS, mesh

import mcgrad
from mcgrad.distributions.numerics import error_function

pytestmark = MARKS

ESTIMATORS = {
    "by default": None,
    "score": mcgrad.Score(),
    "measure-valued": mcgrad.MeasureValued(),
    "disarm": mcgrad.DisARM(),
    "arms": mcgrad.ARMS(3),
    "carms": mcgrad.CARMS(3),
    "tree disarm": mcgrad.TreeDisARM(),
    "enumerate": mcgrad.Enumerate(),
    "local expectation": mcgrad.LocalExpectation(),
    "unordered set": mcgrad.UnorderedSet(2),
    "sum and sample": mcgrad.SumAndSample(),
    "importance sampling": mcgrad.ImportanceSampling(lambda law: law),
    "smoothed perturbation": mcgrad.SmoothedPerturbation(),
    "bonnet and price": mcgrad.BonnetPrice(),
    "lax": mcgrad.LAX(lambda x: 0.3 * jnp.sum(x)),
    "relax": mcgrad.RELAX(lambda x: 0.3 * jnp.sum(x)),
    "taylor": mcgrad.Taylor(mcgrad.Score(), 0.7),
    "straight-through": mcgrad.StraightThrough(),
    "gumbel-softmax": mcgrad.GumbelSoftmax(0.7),
}
QUICK = [
    *(("Bernoulli, logits", name) for name in ("arms", "carms", "sum and sample")),
    *((name, "score") for name in ("Poisson", "Multinomial, logits", "NegativeBinomial, logits")),
    ("Logistic", "measure-valued"),
]
ALL = [
    pytest.param(law, name, marks=() if (law, name) in QUICK else pytest.mark.slow)
    for law in ORDINARY
    for name in ESTIMATORS
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # densities jump where their support ends
@pytest.mark.parametrize(("law", "name"), ALL)
def test_types_are_kept(law, name):
    case, estimator = ORDINARY[law], ESTIMATORS[name]
    params = {field: jnp.stack([jnp.asarray(value, float)] * 8) for field, value in case.params.items()}

    def program(params, numbers, key):
        def one(params, number):
            dist = case.make(**params)
            x = mcgrad.sample(jax.random.fold_in(key, number), dist, estimator)
            return jnp.sum(jnp.sin(0.7 * x)) + jnp.sum(dist.log_prob(jax.lax.stop_gradient(x)))

        return jnp.sum(jax.vmap(one)(params, numbers))

    gradient, given = mcgrad.grad(program), (params, jnp.arange(8), jax.random.key(0))
    try:
        jax.make_jaxpr(gradient)(*given)
    except (ValueError, TypeError, NotImplementedError):
        pytest.skip("refused on one device too")
    spread = (P("data"), P("data"), P())
    with jax.set_mesh(mesh(AxisType.Explicit)):
        found = jax.eval_shape(gradient, *jax.device_put(given, spread))
        assert all(jax.tree.leaves(jax.tree.map(lambda x: x.sharding.spec[0] == "data", found)))
    mapped = jax.shard_map(gradient, mesh=mesh(AxisType.Auto), in_specs=spread, out_specs=P("data"))
    try:
        jax.make_jaxpr(mapped)(*given)  # which checks that gradients differ along the axis
    except NotImplementedError as error:
        assert "JAX cannot draw from" in str(error) and law.startswith(("Binomial", "Multinomial"))


@pytest.mark.parametrize("name", ["ndtr", "erf", "erfc", "ndtri"])
def test_integrals_of_the_normal_density_have_derivatives_in_a_shard_map(name):
    def slopes(fn):
        return lambda x: jax.grad(lambda x: jnp.sum(fn(x)))(x)

    x = jnp.asarray([0.01, 0.1, 0.3, 0.5, 0.6, 0.9, 0.99, 0.999])
    spread = {"mesh": mesh(AxisType.Auto), "in_specs": P("data"), "out_specs": P("data")}
    own = jax.jit(jax.shard_map(slopes(getattr(error_function, name)), **spread))(x)
    np.testing.assert_allclose(own, slopes(getattr(jax.scipy.special, name))(x), rtol=1e-14)
