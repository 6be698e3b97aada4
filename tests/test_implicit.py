"""Implicit reparameterization against explicit draws: first and second derivatives in every nesting of modes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import special

from mcgrad.distributions import implicit_reparameterization

# Each law: cdf(x, params), icdf(u, params), params. The explicit draw icdf(u, params) at fixed u has all the right derivatives.
LAWS = {
    "exponential": (lambda x, t: -jnp.expm1(-t[0] * x), lambda u, t: -jnp.log1p(-u) / t[0], [1.7]),
    "normal": (
        lambda x, t: special.ndtr((x - t[0]) / t[1]),
        lambda u, t: t[0] + t[1] * special.ndtri(u),
        [0.4, 1.3],
    ),
    "logistic": (
        lambda x, t: jax.nn.sigmoid((x - t[0]) / t[1]),
        lambda u, t: t[0] + t[1] * special.logit(u),
        [0.4, 1.3],
    ),
    "weibull": (
        lambda x, t: -jnp.expm1(-((x / t[0]) ** t[1])),
        lambda u, t: t[0] * (-jnp.log1p(-u)) ** (1 / t[1]),
        [1.3, 2.1],
    ),
}
SPELLINGS = {
    "cdf": lambda cdf, icdf: {"cdf": cdf},
    "icdf": lambda cdf, icdf: {"icdf": icdf},
    "both": lambda cdf, icdf: {"cdf": cdf, "icdf": icdf},
    "decreasing": lambda cdf, icdf: {"icdf": lambda u, t: icdf(1 - u, t)},
}
MODES = {"forward": jax.jacfwd, "reverse": jax.jacrev}
U = np.array([0.07, 0.5, 0.81])


def programs(law: str, spelling: str) -> tuple[Any, Any, jax.Array, jax.Array]:
    """The same cost with an implicit and an explicit draw, the parameters, and the draw."""
    cdf, icdf, params = LAWS[law]
    params = jnp.asarray(params)
    x = icdf(U, params)
    kwargs = SPELLINGS[spelling](cdf, icdf)

    def cost(draw: jax.Array, params: jax.Array) -> jax.Array:  # parameters downstream of the draw too
        return jnp.sum(jnp.sin(draw) * params[0] + params[-1] ** 2 * draw**3)

    implicit = lambda t: cost(implicit_reparameterization(x, t, **kwargs), t)  # noqa: E731
    explicit = lambda t: cost(icdf(U, t), t)  # noqa: E731
    return implicit, explicit, params, x


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("law", LAWS)
def test_derivatives_of_every_order_and_nesting(law: str, spelling: str) -> None:
    implicit, explicit, params, _ = programs(law, spelling)
    np.testing.assert_allclose(implicit(params), explicit(params), rtol=1e-14)

    @jax.jit  # one compilation
    def derivatives(t: jax.Array) -> Any:
        firsts = {name: mode(implicit)(t) for name, mode in MODES.items()}
        seconds = {(a, b): outer(inner(implicit))(t) for a, outer in MODES.items() for b, inner in MODES.items()}
        return firsts, seconds, jax.jacfwd(explicit)(t), jax.hessian(explicit)(t)

    firsts, seconds, gradient, hessian = derivatives(params)
    for first in firsts.values():
        np.testing.assert_allclose(first, gradient, rtol=1e-9, atol=1e-11)
    for second in seconds.values():
        np.testing.assert_allclose(second, hessian, rtol=1e-8, atol=1e-10)


def test_jit_inside_and_third_order() -> None:
    implicit, explicit, params, _ = programs("logistic", "cdf")
    nested = jax.jit(jax.jacfwd(jax.jit(jax.jacrev(jax.jit(implicit)))))
    np.testing.assert_allclose(nested(params), jax.hessian(explicit)(params), rtol=1e-9)
    third = lambda f: jax.jit(jax.jacrev(jax.jacfwd(jax.grad(f))))(params)  # noqa: E731
    np.testing.assert_allclose(third(implicit), third(explicit), rtol=1e-8)


def test_grad_of_grad_and_vmap() -> None:
    cdf = lambda x, rate: -jnp.expm1(-rate * x)  # noqa: E731
    draw = lambda rate: implicit_reparameterization(jnp.asarray(2.0), rate, cdf=cdf)  # noqa: E731
    assert jax.grad(draw)(3.0) == pytest.approx(-2 / 3)
    assert jax.grad(jax.grad(draw))(3.0) == pytest.approx(2 * 2 / 9)  # x(rate) = 2 * 3 / rate
    np.testing.assert_allclose(jax.vmap(jax.grad(draw))(jnp.asarray([3.0, 4.0])), [-2 / 3, -1 / 2])


def test_values_that_the_function_closes_over_are_seen() -> None:
    def draw(rate: Any) -> Any:
        return implicit_reparameterization(jnp.asarray(2.0), None, cdf=lambda x, _: -jnp.expm1(-rate * x))

    def by_quantile(rate: Any) -> Any:
        return implicit_reparameterization(jnp.asarray(2.0), None, icdf=lambda u, _: -jnp.log1p(-u) / rate)

    for fn in (draw, by_quantile, jax.jit(draw)):
        assert jax.grad(fn)(3.0) == pytest.approx(-2 / 3)
        assert jax.grad(jax.grad(fn))(3.0) == pytest.approx(4 / 9)
        assert jax.jacfwd(jax.grad(fn))(3.0) == pytest.approx(4 / 9)


def test_the_derivative_that_the_draw_carries_is_dropped() -> None:
    draw = lambda rate: implicit_reparameterization(6 / rate, rate, cdf=lambda x, r: -jnp.expm1(-r * x))  # noqa: E731
    assert jax.grad(draw)(3.0) == pytest.approx(-2 / 3)


def test_pytree_and_integer_parameters() -> None:
    def cdf(x: Any, params: Any) -> Any:
        return special.gammainc(params["count"].astype(x.dtype), params["rate"] * x)

    def draw(rate: Any) -> Any:
        return implicit_reparameterization(jnp.asarray(2.0), {"rate": rate, "count": jnp.asarray(3)}, cdf=cdf)

    assert jax.grad(draw)(1.5) == pytest.approx(-2 / 1.5)


def test_vectors_move_as_their_standardization_says() -> None:
    """Correlated normal draws by their conditional distribution functions, against the explicit draw: a triangular one."""
    params, z = jnp.asarray([0.3, 1.2, 0.7]), jnp.asarray([[0.4, -1.1], [2.0, 0.3]])

    def explicit(t: jax.Array) -> jax.Array:
        return jnp.stack([t[0] + t[1] * z[:, 0], t[2] * z[:, 0] ** 2 + t[1] ** 2 * z[:, 1]], axis=-1)

    def standardization(x: jax.Array, t: jax.Array) -> jax.Array:
        first = (x[:, 0] - t[0]) / t[1]
        return jnp.stack([special.ndtr(first), special.ndtr((x[:, 1] - t[2] * first**2) / t[1] ** 2)], axis=-1)

    x = explicit(params)
    cost = lambda draw: jnp.sum(jnp.sin(draw[:, 0]) * draw[:, 1] ** 2)  # noqa: E731
    implicit = lambda t: cost(implicit_reparameterization(x, t, standardization=standardization))  # noqa: E731
    derivatives = jax.jit(
        lambda t: [jax.grad(implicit)(t), jax.hessian(implicit)(t), jax.jacrev(jax.grad(implicit))(t)]
    )
    direct = lambda t: cost(explicit(t))  # noqa: E731
    for got, expected in zip(
        derivatives(params), [jax.grad(direct)(params), *[jax.hessian(direct)(params)] * 2], strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_float32_in_the_tails(spelling: str) -> None:
    cdf, icdf, _ = LAWS["exponential"]
    u = np.float32([1e-6, 1e-3, 0.999])
    params = jnp.asarray([2.0], jnp.float32)
    x = icdf(u, params)
    draw = lambda t: implicit_reparameterization(x, t, **SPELLINGS[spelling](cdf, icdf))  # noqa: E731
    assert draw(params).dtype == jnp.float32
    np.testing.assert_array_equal(draw(params), x)
    # 1 - u keeps 7 digits of 1, so the decreasing spelling has 1 of 1e-6, and 0.999 is known to 4 digits in any
    loose = 0.1 if spelling == "decreasing" else 1e-4
    np.testing.assert_allclose(jax.jacfwd(draw)(params)[:, 0], -np.asarray(x) / 2, rtol=loose)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (
            lambda x: implicit_reparameterization(x, 1.0),
            ValueError,
            r"must get `cdf=`, .* or `standardization=`, got none",
        ),
        (
            lambda x: implicit_reparameterization(x, 1.0, cdf=lambda x, t: x, log_prob=lambda x, t: x),
            ValueError,
            r"must get one function, or `cdf=` and `icdf=`, got `cdf=` and `log_prob=`",
        ),
        (
            lambda x: implicit_reparameterization(x, 1.0, log_prob=lambda x, t: x, support=(1.0, 0.0)),
            ValueError,
            r"support=...\)` must be two numbers `\(low, high\)` with low < high, got \(1.0, 0.0\)",
        ),
        (
            lambda x: implicit_reparameterization(x[0], 1.0, standardization=lambda x, t: x),
            ValueError,
            r"standardization=...\)` must get draws `x` with an axis for the dimension",
        ),
        (
            lambda x: implicit_reparameterization(x, 1.0, cdf=lambda x, t: x.sum()),
            ValueError,
            r"cdf=...\)` must be elem",
        ),
        (
            lambda x: implicit_reparameterization(x, 1.0, icdf=lambda u, t: u[:1]),
            ValueError,
            r"icdf=...\)` must be elem",
        ),
        (lambda x: implicit_reparameterization(x.astype(int), 1.0, cdf=lambda x, t: x), TypeError, r"got int64"),
        (
            lambda x: implicit_reparameterization({"x": x}, 1.0, cdf=lambda x, t: x),
            TypeError,
            r"floating array, got dict",
        ),
    ],
)
def test_refusals(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call(jnp.ones(3))
