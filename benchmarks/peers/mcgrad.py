"""mcgrad's side of each comparison. Estimators that this mcgrad lacks raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import mcgrad
from benchmarks import inputs
from benchmarks.peers import big, by_hand, chains, filters, sizes
from benchmarks.peers.by_hand import case_by_hand, unit
from benchmarks.peers.draws import draws
from benchmarks.peers.jax_case import jax_case
from benchmarks.worker import Case, serve

stop = jax.lax.stop_gradient

ESTIMATORS: dict[str, Callable[[], dict[str, Any]]] = {
    "score": lambda: {"estimator": mcgrad.Score()},
    "leave-one-out of 4": lambda: {"estimator": mcgrad.Score(), "num_samples": 4},
    "leave-one-out of 10": lambda: {"estimator": mcgrad.Score(), "num_samples": 10},
    "pathwise": lambda: {"estimator": mcgrad.Pathwise()},
    "enumeration": lambda: {"estimator": mcgrad.Enumerate()},
    "ARM": lambda: {"estimator": mcgrad.ARM()},
    "DisARM": lambda: {"estimator": mcgrad.DisARM()},
    "local expectation": lambda: {"estimator": mcgrad.LocalExpectation()},
    "smoothed perturbation": lambda: {"estimator": mcgrad.SmoothedPerturbation()},
    "smoothed perturbation, right": lambda: {"estimator": mcgrad.SmoothedPerturbation("right")},
    "measure-valued": lambda: {"estimator": mcgrad.MeasureValued()},
    "unordered set of 2": lambda: {"estimator": mcgrad.UnorderedSet(2)},
    "unordered set of 4": lambda: {"estimator": mcgrad.UnorderedSet(4)},
    "sum and sample of 4": lambda: {"estimator": mcgrad.SumAndSample(4)},
    "CARMS of 4": lambda: {"estimator": mcgrad.CARMS(4)},
    "Gumbel-softmax": lambda: {"estimator": mcgrad.Pathwise()},  # of another program, see `_relaxed`
    "straight-through": lambda: {"estimator": mcgrad.Pathwise(jumps="ignore")},
    "REBAR": lambda: {},  # named at the draw, see `_at_draw`
    "RELAX": lambda: {},
}


def _case(
    program: Callable[..., jax.Array], params: Any, estimator: str | None, value: bool = True, **options: Any
) -> Case:
    """`value`: whether the value is computed beside the gradient; some peers have none."""
    if estimator is not None and estimator not in ESTIMATORS:
        raise LookupError("not in mcgrad")
    chosen = ESTIMATORS[estimator]() if estimator is not None else {}
    if value:
        return jax_case(mcgrad.value_and_grad(program, **chosen), params, **options)
    gradient = mcgrad.grad(program, **chosen)
    return jax_case(lambda params, key: (None, gradient(params, key)), params, **options)


# ---------------------------------------------------------------- against Storchastic


def _relaxed(estimator: str, soft: jax.Array, hard: jax.Array) -> jax.Array:
    """The relaxed draw, or the hard one with its derivative."""
    return soft if estimator == "Gumbel-softmax" else stop(hard - soft) + soft


def _at_draw(
    estimator: str,
    relaxation: Callable[[jax.Array], jax.Array],
    cost: Callable[[jax.Array], jax.Array],
    event_ndim: int,
) -> mcgrad.RELAX | None:
    """REBAR or RELAX with Storchastic's control variates, at its temperature of 1; `None` for what the transform names.

    Args:
        cost: of a relaxed draw, in a shape that broadcasts to the draw's batch shape.
        event_ndim: the last axes of a relaxed draw that the network of RELAX gets together, of 50 units as drawn by torch.
    """
    if estimator == "REBAR":
        return mcgrad.RELAX(lambda z: cost(relaxation(z)))
    if estimator != "RELAX":
        return None

    def network(z: jax.Array) -> jax.Array:
        x = relaxation(z).reshape(*z.shape[: z.ndim - event_ndim], -1)
        for i, size in enumerate((50, 1)):
            bound = x.shape[-1] ** -0.5
            weights = jax.random.uniform(jax.random.key(i), (x.shape[-1] + 1, size), minval=-bound, maxval=bound)
            x = (jax.nn.relu(x) if i else x) @ weights[:-1] + weights[-1]
        return x

    return mcgrad.RELAX(network)


def _bits(key: jax.Array, logits: jax.Array, estimator: str, cost: Callable[[jax.Array], jax.Array]) -> jax.Array:
    if estimator not in ("Gumbel-softmax", "straight-through"):
        named = _at_draw(estimator, jax.nn.sigmoid, cost, 1)
        return mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), named)
    z = mcgrad.sample(key, mcgrad.Logistic(logits, 1.0))
    return _relaxed(estimator, jax.nn.sigmoid(z), (z > 0).astype(z.dtype))


def small_bits(estimator: str, num: int) -> Case:
    def cost(b: jax.Array) -> jax.Array:
        return (b - 0.499) ** 2

    def program(logits: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.sum(cost(_bits(key, logits, estimator, cost)))

    return _case(program, inputs.small_bits(num), estimator)


def table(estimator: str) -> Case:
    logits, costs = inputs.table()
    costs = jnp.asarray(costs)

    def cost(z: jax.Array) -> jax.Array:
        return jnp.einsum("i,j,k,ijk->", z[0], z[1], z[2], costs)

    def program(logits: jax.Array, key: jax.Array) -> jax.Array:
        if estimator in ("Gumbel-softmax", "straight-through"):
            z = mcgrad.sample(key, mcgrad.Gumbel(logits, 1.0))
            z = _relaxed(estimator, jax.nn.softmax(z), jax.nn.one_hot(jnp.argmax(z, axis=-1), z.shape[-1]))
        else:
            named = _at_draw(estimator, jax.nn.softmax, lambda z: cost(z)[None], 2)
            z = mcgrad.sample(key, mcgrad.OneHotCategorical(logits=logits), named).astype(jnp.float32)
        return cost(z)

    return _case(program, logits, estimator)


def _encode(params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = images @ params["encoder"] + params["encoder_bias"]
    p = jax.nn.sigmoid(logits)
    divergence = p * jax.nn.log_sigmoid(logits) + (1 - p) * jax.nn.log_sigmoid(-logits) + jnp.log(2.0)
    return logits, jnp.sum(divergence, axis=-1)


def _reconstruction(params: Any, images: jax.Array, b: jax.Array) -> jax.Array:
    out = b @ params["decoder"] + params["decoder_bias"]
    return jnp.sum(jax.nn.softplus(out) - images * out, axis=-1)


def _report_biases(value: jax.Array, gradient: Any) -> jax.Array:
    return jnp.concatenate([value[None], gradient["encoder_bias"], gradient["decoder_bias"]])


_AUTOENCODER = {"report": _report_biases, "batch": 4}


def autoencoder(estimator: str) -> Case:
    images, params = inputs.autoencoder()
    images = jnp.asarray(images)

    def program(params: Any, key: jax.Array) -> jax.Array:
        logits, divergence = _encode(params, images)
        b = _bits(key, logits, estimator, lambda b: _reconstruction(params, images, b)[:, None])
        return jnp.mean(_reconstruction(params, images, b) + divergence)

    return _case(program, params, estimator, **_AUTOENCODER)


def autoencoder_by_hand(estimator: str) -> Case:
    images, params = inputs.autoencoder()
    images = jnp.asarray(images)
    num_samples = {"score": 1, "leave-one-out of 10": 10}[estimator]

    def surrogate(params: Any, key: jax.Array) -> jax.Array:
        logits, divergence = _encode(params, images)
        keys = jax.random.split(key, num_samples)
        b = jax.vmap(mcgrad.Bernoulli(logits=stop(logits)).sample)(keys)
        log_weight = jax.vmap(lambda b: jnp.sum(mcgrad.Bernoulli(logits=logits).log_prob(b), axis=-1))(b)
        cost = _reconstruction(params, images, b)
        fixed = stop(cost)
        baseline = (jnp.sum(fixed, 0) - fixed) / (num_samples - 1) if num_samples > 1 else 0.0
        weight = unit(log_weight)
        return jnp.mean(cost * weight + (1 - weight) * baseline) + jnp.mean(divergence)

    return case_by_hand(surrogate, params, **_AUTOENCODER)


# ---------------------------------------------------------------- against GenJAX and NumPyro


def mixed(bit: str, normal: str, value: bool) -> Case:
    bit, normal = ESTIMATORS[bit]()["estimator"], ESTIMATORS[normal]()["estimator"]

    def program(params: jax.Array, key: jax.Array) -> jax.Array:
        bit_key, normal_key = jax.random.split(key)
        b = mcgrad.sample(bit_key, mcgrad.Bernoulli(logits=params[0]), bit)
        loc = jnp.where(b == 1, params[1], -params[1])
        x = mcgrad.sample(normal_key, mcgrad.Normal(loc, jnp.exp(params[2])), normal)
        return (x - 1) ** 2 + 0.5 * b

    return _case(program, inputs.MIXED, None, value)


def mixed_by_hand(value: bool) -> Case:
    def surrogate(params: jax.Array, key: jax.Array) -> jax.Array:
        bit_key, normal_key = jax.random.split(key)
        b = jax.random.bernoulli(bit_key, jax.nn.sigmoid(stop(params[0])))
        x = jnp.where(b, params[1], -params[1]) + jnp.exp(params[2]) * jax.random.normal(normal_key)
        return ((x - 1) ** 2 + 0.5 * b) * unit(b * params[0] - jax.nn.softplus(params[0]))

    return case_by_hand(surrogate, inputs.MIXED, value)


def bits(estimator: str, num: int, joint: bool, value: bool) -> Case:
    """`num` scalar draws, each a line of its own."""
    w = inputs.bits_weights(num)

    def program(logits: jax.Array, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, num)
        b = [mcgrad.sample(keys[i], mcgrad.Bernoulli(logits=logits[i])) for i in range(num)]
        if joint:
            return (sum(w[i] * b[i] for i in range(num)) - jnp.sum(w) / 3) ** 2
        return sum((w[i] * b[i] - 1 / 3) ** 2 for i in range(num))

    return _case(program, inputs.bits(num), estimator, value)


def gaussian_chain(estimator: str, num_steps: int, value: bool) -> Case:
    def program(loc: jax.Array, key: jax.Array) -> jax.Array:
        def step(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            x = 0.9 * x + mcgrad.sample(key, mcgrad.Normal(loc[0], 0.3))
            return x, x**2

        return jnp.sum(jax.lax.scan(step, jnp.float32(0.0), jax.random.split(key, num_steps))[1])

    return _case(program, jnp.full(1, inputs.CHAIN), estimator, value)


def gaussian_chain_by_hand(num_steps: int, value: bool) -> Case:
    def surrogate(loc: jax.Array, key: jax.Array) -> jax.Array:
        def step(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            x = 0.9 * x + loc[0] + 0.3 * jax.random.normal(key)
            return x, x**2

        return jnp.sum(jax.lax.scan(step, jnp.float32(0.0), jax.random.split(key, num_steps))[1])

    return case_by_hand(surrogate, jnp.full(1, inputs.CHAIN), value)


def bernoulli_chain(estimator: str, num_steps: int, value: bool = True, in_a_row: int = 1) -> Case:
    def program(logit: jax.Array, key: jax.Array) -> jax.Array:
        def step(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            x = 0.9 * x + 0.1 * (2 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logit[0])) - 1)
            return x, x**2

        return jnp.sum(jax.lax.scan(step, jnp.float32(0.0), jax.random.split(key, num_steps))[1])

    return _case(program, jnp.full(1, inputs.CHAIN), estimator, value, in_a_row=in_a_row)


def bernoulli_chain_by_hand(num_steps: int, in_a_row: int = 1) -> Case:
    """One simulation and its gradient: the score, each cost with the weight of the draws so far."""

    def surrogate(logit: jax.Array, key: jax.Array) -> jax.Array:
        def step(carry: Any, key: jax.Array) -> Any:
            x, log_weight = carry
            b = jax.random.bernoulli(key, jax.nn.sigmoid(stop(logit[0]))).astype(jnp.float32)
            log_weight = log_weight + b * logit[0] - jax.nn.softplus(logit[0])
            x = 0.9 * x + 0.1 * (2 * b - 1)
            return (x, log_weight), x**2 * unit(log_weight)

        start = jnp.float32(0.0), jnp.float32(0.0)
        return jnp.sum(jax.lax.scan(step, start, jax.random.split(key, num_steps))[1])

    return case_by_hand(surrogate, jnp.full(1, inputs.CHAIN), in_a_row=in_a_row)


def walk(estimator: str, num_steps: int, in_a_row: int = 1) -> Case:
    def program(p: jax.Array, key: jax.Array) -> jax.Array:
        def step(x: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            return x + 2 * mcgrad.sample(key, mcgrad.Bernoulli(probs=jnp.exp(-x / p[0]))) - 1, None

        return jax.lax.scan(step, jnp.float32(0.0), jax.random.split(key, num_steps))[0] ** 2

    return _case(program, inputs.walk(num_steps), estimator, in_a_row=in_a_row)


def walk_by_hand(num_steps: int, in_a_row: int = 1) -> Case:
    def surrogate(p: jax.Array, key: jax.Array) -> jax.Array:
        def step(carry: Any, key: jax.Array) -> Any:
            x, log_weight = carry
            up = jnp.exp(-x / p[0])
            b = jax.random.bernoulli(key, stop(up))
            # at 0 the walk goes up with certainty, and the other branch must not make a NaN of the derivative
            log_weight = log_weight + jnp.log(jnp.where(b, up, jnp.where(x > 0, 1 - up, 1.0)))
            return (x + 2 * b.astype(jnp.float32) - 1, log_weight), None

        start = jnp.float32(0.0), jnp.float32(0.0)
        x, log_weight = jax.lax.scan(step, start, jax.random.split(key, num_steps))[0]
        return x**2 * unit(log_weight)

    return case_by_hand(surrogate, inputs.walk(num_steps), in_a_row=in_a_row)


# ---------------------------------------------------------------- against Optax


def normals(estimator: str, num: int, num_samples: int, summed: bool, value: bool = True) -> Case:
    """`summed`: whether the inner product is written as a sum of products."""
    w = inputs.normals_weights(num)
    baseline = {"score": None, "leave-one-out": "leave_one_out"}
    score = estimator in baseline
    chosen = mcgrad.Score(baseline=baseline[estimator]) if score else ESTIMATORS[estimator]()["estimator"]

    def program(params: jax.Array, key: jax.Array) -> jax.Array:
        x = mcgrad.sample(key, mcgrad.Normal(params[0], jnp.exp(params[1])))
        return jnp.cos(jnp.sum(w * x) if summed else w @ x) + 0.1 * jnp.sum((x - 1) ** 2)

    options = {"estimator": chosen, "num_samples": num_samples}
    if value:
        return jax_case(mcgrad.value_and_grad(program, **options), inputs.normals(num), batch=200)
    gradient = mcgrad.grad(program, **options)
    return jax_case(lambda params, key: (None, gradient(params, key)), inputs.normals(num), batch=200)


def main() -> None:
    builders = {
        fn.__name__: fn
        for fn in (
            small_bits,
            table,
            autoencoder,
            autoencoder_by_hand,
            mixed,
            mixed_by_hand,
            bits,
            gaussian_chain,
            gaussian_chain_by_hand,
            bernoulli_chain,
            bernoulli_chain_by_hand,
            walk,
            walk_by_hand,
            normals,
            draws,
        )
    }
    serve(
        builders | by_hand.BUILDERS | chains.BUILDERS | sizes.BUILDERS | big.BUILDERS | filters.BUILDERS,
        ("jax", "jaxlib", "numpy"),
    )


if __name__ == "__main__":
    main()
