"""Checks that the derivative of a draw is the pathwise one, by the sampler's jaxpr.

A sampler may look differentiable and not be: a categorical index that picks a component, a `floor`, a `stop_gradient`
give a parameter that moves the draw and whose derivative is zero. JAX reports nothing. Here it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mcgrad import _compat


def pathwise_obstacle(dist: Any) -> str | None:
    """The reason why a pathwise derivative through `dist.sample` would be wrong, or `None` where it is right.

    mcgrad's own distributions know. For a user's functions and for other libraries the sampler is traced, and each floating
    parameter must either leave the draw alone or reach it through derivatives. **A parameter that reaches the draw both
    smoothly and through a discrete choice passes this test**, and its derivative lacks the discrete part.

    Args:
        dist: a distribution, as `as_distribution` returns it.

    Returns:
        The reason, naming the parameter, as a clause to put after "because".

    Example:
        >>> import mcgrad
        >>> mcgrad.distributions.pathwise_obstacle(mcgrad.Bernoulli(logits=0.0))
        'Bernoulli is discrete'
    """
    if hasattr(type(dist), "pathwise_obstacle"):
        return dist.pathwise_obstacle
    if dist.reparameterized:
        return None
    law = name_of(dist)
    return f"{law} is discrete" if getattr(dist, "discrete", False) else f"{law} is not reparameterized"


def name_of(dist: Any) -> str:
    """The name that messages give a distribution."""
    return getattr(dist, "law", type(dist).__name__)


def sampler_obstacle(sample: Callable[[Any, Any], Any], params: Any, law: str, names: Sequence[str]) -> str | None:
    """`pathwise_obstacle` of a sampler `sample(key, params)`; `names` are those of the leaves of `params`."""
    leaves, tree = jax.tree.flatten(params)
    structs = [jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
    key = jax.eval_shape(lambda: jax.random.key(0))

    def draw(key: Any, *leaves: Any) -> list[Any]:
        return jax.tree.leaves(sample(key, jax.tree.unflatten(tree, leaves)))

    closed, outputs = jax.make_jaxpr(draw, return_shape=True)(key, *structs)
    if not all(jnp.issubdtype(out.dtype, jnp.floating) for out in outputs):
        return f"{law} is discrete" if len(outputs) == 1 else f"a part of a draw from {law} is discrete"
    for i, name in enumerate(names):
        if not jnp.issubdtype(structs[i].dtype, jnp.floating):
            continue
        moved = reaches(closed, [j == i + 1 for j in range(len(leaves) + 1)])
        if not any(moved):
            continue

        def tangents(tangent: Any, key: Any, *leaves: Any, i: int = i) -> list[Any]:
            of_one = lambda leaf: draw(key, *leaves[:i], leaf, *leaves[i + 1 :])  # noqa: E731
            return jax.jvp(of_one, (leaves[i],), (tangent,))[1]

        derivative = jax.make_jaxpr(tangents)(structs[i], key, *structs)
        differentiated = reaches(derivative, [j == 0 for j in range(len(leaves) + 2)])
        if any(m and not d for m, d in zip(moved, differentiated, strict=True)):
            return f"the draw from {law} depends on `{name}`, but its derivative in `{name}` is identically zero"
    return None


def influences(fn: Callable[..., Any], leaves: Sequence[Any]) -> list[bool]:
    """True for each leaf that an output of `fn(*leaves)` depends on."""
    structs = [jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
    closed = jax.make_jaxpr(fn)(*structs)
    return [any(reaches(closed, [j == i for j in range(len(leaves))])) for i in range(len(leaves))]


def reaches(jaxpr: Any, marked: Sequence[bool]) -> list[bool]:
    """True for each output of a jaxpr that depends on a marked input. Calls, loops and branches are entered."""
    jaxpr, _ = _compat.open_jaxpr(jaxpr)
    found = {var for var, mark in zip(jaxpr.invars, marked, strict=True) if mark}
    is_found = lambda value: not isinstance(value, _compat.Literal) and value in found  # noqa: E731
    for eqn in jaxpr.eqns:
        inputs = [is_found(value) for value in eqn.invars]
        if any(inputs):
            found.update(var for var, mark in zip(eqn.outvars, _through(eqn, inputs), strict=True) if mark)
    return [is_found(value) for value in jaxpr.outvars]


def _through(eqn: Any, inputs: list[bool]) -> list[bool]:
    everything = [True] * len(eqn.outvars)
    bodies = _compat.sub_jaxprs(eqn)
    if eqn.primitive is _compat.cond_p:
        if inputs[0]:
            return everything
        return [any(marks) for marks in zip(*(reaches(body, inputs[1:]) for body in bodies), strict=True)]
    if eqn.primitive is _compat.scan_p:
        num_consts, num_carry = _compat.scan_split(eqn)
        return _loop(
            bodies[0],
            inputs[:num_consts],
            inputs[num_consts : num_consts + num_carry],
            inputs[num_consts + num_carry :],
        )
    if eqn.primitive is _compat.while_p:
        num_cond, num_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        carry = _loop(
            eqn.params["body_jaxpr"], inputs[num_cond : num_cond + num_body], inputs[num_cond + num_body :], []
        )
        stops = reaches(eqn.params["cond_jaxpr"], inputs[:num_cond] + carry)
        return everything if any(stops) else carry
    if len(bodies) == 1:  # `jit`, `checkpoint`, custom derivatives: the body has the equation's inputs and outputs
        body, _ = _compat.open_jaxpr(bodies[0])
        if len(body.invars) == len(eqn.invars) and len(body.outvars) == len(eqn.outvars):
            return reaches(body, inputs)
    return everything


def _loop(body: Any, consts: list[bool], carry: list[bool], xs: list[bool]) -> list[bool]:
    while True:
        outputs = reaches(body, consts + carry + xs)
        merged = [old or new for old, new in zip(carry, outputs[: len(carry)], strict=True)]
        if merged == carry:
            return carry + outputs[len(carry) :]
        carry = merged
