"""The von Mises-Fisher law: derivatives of draws and densities against exact ones, moments, corners."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_unbiased, central_difference

from mcgrad import distributions as laws
from mcgrad.distributions.von_mises import _velocity as velocity_on_the_circle
from mcgrad.distributions.von_mises_fisher import _normalizer, _velocity

# Dimension, concentration, log odds of (1 - mu . x) / 2, their derivative in the concentration at a fixed quantile, and the log
# density of x: by mpmath with 25 digits, from quad(lambda r: abs(h(y -+ r) - H) * exp(d(y -+ r) - d(y)), [0, ..., inf]) on the
# side where nothing cancels, with H = (1 - besseli(m / 2, k) / besseli(m / 2 - 1, k)) / 2 and the log density d of the log odds.
EXACT = np.array(
    [
        (2.0, 0.10000000149011612, -13.107399940490723, -1.9001251697032302, -1.74037591025708),
        (2.0, 0.10000000149011612, -0.8370000123977661, -1.9577037272483295, -1.8008089035277752),
        (2.0, 0.10000000149011612, 12.70740032196045, -2.099874563153282, -1.9403749014836587),
        (2.0, 50.0, -18.65719985961914, -0.020102065402502596, 1.0345466423480634),
        (2.0, 50.0, -6.582799911499023, -0.02013002954107031, 0.896341816529756),
        (2.0, 50.0, -2.8550000190734863, -0.021265371536993212, -4.4077960298151915),
        (3.0, 0.0010000000474974513, -6.907800197601318, -0.999667332311238, -2.5300264115009075),
        (3.0, 0.0010000000474974513, -0.40639999508857727, -0.9999331037848715, -2.5308239649226776),
        (3.0, 0.0010000000474974513, 6.905799865722656, -1.0003326656906306, -2.5320224117745447),
        (3.0, 2.0, -8.311800003051758, -0.4627805803900317, -1.1272266040489969),
        (3.0, 2.0, -1.9490000009536743, -0.5159400156453188, -1.6248941944131856),
        (3.0, 2.0, 4.3256001472473145, -1.5046829597607698, -5.074032531764751),
        (3.0, 10000.0, -16.810800552368164, -0.00010000000500221188, 7.371462863239912),
        (3.0, 10000.0, -10.575200080871582, -0.00010000255416506138, 6.861643340474967),
        (3.0, 10000.0, -7.970399856567383, -0.00010003455407915122, 0.46403461923930145),
        (5.0, 0.5, -4.216400146484375, -0.4515760287520841, -2.8097375994952296),
        (5.0, 0.5, -0.5166000127792358, -0.4836664816011816, -3.168848001958833),
        (5.0, 0.5, 3.716599941253662, -0.5468802656541096, -3.7714611450519677),
        (5.0, 20.0, -6.805600166320801, -0.04873667205588721, 2.322750511368125),
        (5.0, 20.0, -3.3613998889923096, -0.05032568008363981, 1.0260502181823794),
        (5.0, 20.0, -1.2411999702453613, -0.06226552074635334, -6.602083595763093),
        (10.0, 3.0, -2.892199993133545, -0.1639023595243521, -0.9884164902612768),
        (10.0, 3.0, -0.7982000112533569, -0.18601259769362696, -2.535637633844605),
        (10.0, 3.0, 1.586400032043457, -0.2525591092070838, -5.653827579523142),
        (10.0, 1000.0, -8.154000282287598, -0.0009985348298749168, 22.247330960023827),
        (10.0, 1000.0, -6.298399925231934, -0.0010000810539859848, 19.15059340593171),
        (10.0, 1000.0, -4.960999965667725, -0.0010052295573693755, 8.907976421961237),
        (101.0, 5.0, -0.7235999703407288, -0.019615662531271266, 89.62762756248448),
        (101.0, 5.0, -0.15060000121593475, -0.019877905522957245, 88.26942496004945),
        (101.0, 5.0, 0.5239999890327454, -0.020207319487864372, 86.61280873482174),
        (101.0, 300.0, -2.9992001056671143, -0.003201620176589392, 168.8989382073975),
        (101.0, 300.0, -2.5362000465393066, -0.003283275208425391, 153.36071205680642),
        (101.0, 300.0, -2.0483999252319336, -0.0034209159691793354, 128.8476560155916),
        (5.0, 1000000.0, -17.600799560546875, -9.999995227017781e-07, 23.909863382531146),
        (5.0, 1000000.0, -14.189200401306152, -1.0000001881891374e-06, 22.578888279235656),
        (5.0, 1000000.0, -12.285799980163574, -1.0000041168352959e-06, 14.721629787724876),
    ]
)


@pytest.mark.parametrize(
    ("dtype", "bound"), [(np.float64, 1e-10), pytest.param(np.float32, 1e-5, marks=pytest.mark.slow)]
)
def test_velocity_is_exact(dtype: Any, bound: float) -> None:
    m, k, y = (jnp.asarray(column, dtype) for column in EXACT.T[:3])
    found = _velocity(y, k, (m - 1) / 2)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, EXACT[:, 3], rtol=bound)


@pytest.mark.parametrize("m", [5, *(pytest.param(m, marks=pytest.mark.slow) for m in (2, 3, 10, 101))])
def test_density_is_exact(m: int) -> None:
    rows = EXACT[EXACT[:, 0] == m]
    h = 1 / (1 + np.exp(-rows[:, 2]))
    x = np.zeros((len(h), m))
    x[:, 0], x[:, 1] = 1 - 2 * h, 2 * np.sqrt(h * (1 - h))
    found = jax.jit(lambda k, x: laws.VonMisesFisher(np.eye(m)[0], k).log_prob(x))(rows[:, 1], x)
    np.testing.assert_allclose(found, rows[:, 4], rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_circle_and_sphere() -> None:
    """On the circle the angle moves as that of `VonMises`; on the sphere the quantile is in closed form."""
    theta, k = jnp.asarray([0.3, 1.0, 3.0]), jnp.asarray([0.2, 4.0, 1.0])
    y = 2 * jnp.log(jnp.tan(theta / 2))
    np.testing.assert_allclose(
        jnp.sin(theta) / 2 * _velocity(y, k, 0.5), velocity_on_the_circle(theta, k)[0], rtol=1e-10
    )
    h = np.asarray(jax.nn.sigmoid(y))
    u = np.expm1(-2 * k * h) / np.expm1(-2 * k)
    quantile = lambda k: -np.log1p(u * np.expm1(-2 * k)) / (2 * k)  # noqa: E731
    exact = [central_difference(quantile, value, value / 40)[i] for i, value in enumerate(np.asarray(k))]
    np.testing.assert_allclose(h * (1 - h) * _velocity(y, k, 1.0), exact, rtol=1e-10)
    second = jax.grad(jax.grad(lambda k: _normalizer(k, 1.0)[0]))(2.0)  # of log(sinh(k) / k) - k
    np.testing.assert_allclose(second, 1 / 4 - 1 / np.sinh(2) ** 2, rtol=1e-10)


@pytest.mark.slow
def test_density_is_scipys_and_draws_follow_it() -> None:
    mu = np.array([0.48, -0.6, 0.64])
    x = np.array([[0.6, 0.0, 0.8], [-0.48, 0.6, -0.64], [0.0, -1.0, 0.0]])
    log_prob = jax.jit(lambda mu, k: laws.VonMisesFisher(mu, k).log_prob(x))
    for k in (0.01, 3.0, 200.0):
        np.testing.assert_allclose(log_prob(mu, k), scipy.stats.vonmises_fisher(mu, k).logpdf(x), rtol=1e-11)
    for m, k in ((2, 3.0), (3, 1e4), (6, 5.0)):
        mu = np.ones(m) / np.sqrt(m)
        draw = jax.jit(jax.vmap(laws.VonMisesFisher(mu, k).sample))
        x = np.asarray(draw(jax.random.split(jax.random.key(0), 4_000)))
        np.testing.assert_allclose(np.sum(x**2, -1), 1, rtol=1e-12)
        t = np.linspace(0, np.pi, 200_001)
        density = np.sin(t) ** (m - 2) * np.exp(k * (np.cos(t) - 1))
        cdf = np.cumsum(density) / np.sum(density)
        angle = 2 * np.arcsin(np.linalg.norm(x - mu, axis=-1) / 2)
        assert scipy.stats.kstest(angle, lambda angle: np.interp(angle, t, cdf)).pvalue > 1e-3  # noqa: B023


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
def test_derivatives_of_a_moment(order: int) -> None:
    """`E[exp(c . x)] = Z(|k mu + c|) / Z(k)` with `Z(t) = sinh(t) / t` on the sphere."""
    c = jnp.asarray([0.9, -0.5, 0.3])
    params = jnp.asarray([0.4, -0.7, 1.1, 1.8])

    def law(p: Any) -> laws.VonMisesFisher:
        return laws.VonMisesFisher(p[:3] / jnp.linalg.norm(p[:3]), p[3])

    def cost(p: Any, key: Any) -> Any:
        return jnp.exp(c @ law(p).sample(jax.random.clone(key)))

    def exact(p: Any) -> Any:
        z = lambda t: jnp.sinh(t) / t  # noqa: E731
        return z(jnp.linalg.norm(p[3] * p[:3] / jnp.linalg.norm(p[:3]) + c)) / z(p[3])

    def both(fn: Any) -> Any:
        seconds = (jax.hessian(fn),) if order == 2 else ()
        return lambda p, *args: tuple(f(p, *args) for f in (fn, jax.grad(fn), *seconds))

    draws = jax.jit(jax.vmap(both(cost), (None, 0)))(params, jax.random.split(jax.random.key(1), 40_000))
    for found, wanted in zip(draws, both(exact)(params), strict=True):
        assert_unbiased(found, wanted)


@pytest.mark.slow
def test_a_draw_stays_on_the_sphere_and_nothing_is_nan_in_float32() -> None:
    k = jnp.asarray([1e-6, 0.3, 1e3, 1e8, 1e14], jnp.float32)
    mu = jnp.broadcast_to(jnp.asarray([0.6, 0.0, 0.8, 0.0], jnp.float32), (5, 4))

    def cost(params: Any, key: Any) -> Any:
        dist = laws.VonMisesFisher(*params)
        x = dist.sample(key)
        return jnp.sum(x * x), (x, dist.log_prob(x))

    keys = jax.random.split(jax.random.key(2), 200)
    slopes, others = jax.jit(jax.vmap(jax.grad(cost, has_aux=True), (None, 0)))((mu, k), keys)
    for leaf in (*slopes, *others):
        assert np.isfinite(leaf).all() and leaf.dtype == np.float32
    np.testing.assert_allclose(slopes[0], 0, atol=1e-5)  # of the squared length
    np.testing.assert_allclose(slopes[1], 0, atol=1e-5)


def test_the_draw_turns_with_the_direction() -> None:
    """By the rotation in the plane of the direction and its change: `(mu_dot mu^T - mu mu_dot^T) x`."""
    mu, change = jnp.asarray([0.6, 0.0, 0.8]), jnp.asarray([0.4, -0.5, -0.3])
    draw = lambda mu: laws.VonMisesFisher(mu, 3.0).sample(jax.random.key(3))  # noqa: E731
    x, moved = jax.jit(lambda mu, change: jax.jvp(draw, (mu,), (change,)))(mu, change)
    np.testing.assert_allclose(moved, change * (mu @ x) - mu * (change @ x), rtol=1e-12)


def test_refusals() -> None:
    with pytest.raises(
        ValueError, match=r"VonMisesFisher\(mean_direction=...\)` must be a unit vector, got one of length 2.0"
    ):
        laws.VonMisesFisher(jnp.asarray([0.0, 2.0]), 1.0)
    with pytest.raises(
        ValueError, match=r"VonMisesFisher\(mean_direction=...\)` must have at least two entries .* shape \(1,\)"
    ):
        laws.VonMisesFisher(jnp.ones(1), 1.0)
    with pytest.raises(ValueError, match=r"VonMisesFisher\(concentration=...\)` must be positive"):
        laws.VonMisesFisher(jnp.asarray([0.0, 1.0]), 0.0)
