"""The von Mises law: draws, densities, and derivatives of draws against exact ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.scipy import special

from mcgrad import distributions as laws
from mcgrad.distributions.von_mises import _deviation

# Concentration, draw, log density, first and second derivative of the draw in the concentration at a fixed quantile: mpmath with
# 40 digits, v = quad(lambda t: (cos(t) - A) * exp(k * (cos(t) - cos(theta))), [theta, pi]) with A = besseli(1, k) / besseli(0, k),
# and `diff` of v along the draw. Angles are exact in float32.
EXACT = np.array(
    [
        (9.999999747378752e-05, 0.003926598001271486, -1.837777069682779, -0.003926391583241861, 0.005889443815902798),
        (9.999999747378752e-05, 0.942396879196167, -1.8378182838394803, -0.8089456514327388, 0.7133460436880439),
        (9.999999747378752e-05, 2.5132153034210205, -1.8379579671492787, -0.5878566141933415, -0.7133411886336687),
        (9.999999747378752e-05, 3.138450860977173, -1.8379770684132766, -0.0031419445325160133, -0.004712972081807925),
        (0.10000000149011612, 0.003562177764251828, -1.7403761386823782, -0.003384285037060276, 0.004989679299812241),
        (0.10000000149011612, 0.8652104139328003, -1.7755275091232088, -0.7358581919403882, 0.7418629328527251),
        (0.10000000149011612, 2.4508566856384277, -1.9174532403863014, -0.6611886032793481, -0.7505662448065803),
        (0.10000000149011612, 3.1381120681762695, -1.9403749014846121, -0.0036543890088611268, -0.0055706228953985425),
        (1.0, 0.0018290347652509809, -1.073793097600144, -0.0010125721081098162, 0.0012086810667643123),
        (1.0, 0.4539390206336975, -1.175064641954163, -0.25284701082562394, 0.29685333053470325),
        (1.0, 1.6515617370605469, -2.154469057660896, -0.8893974638653023, 0.5375975463288403),
        (1.0, 3.1307809352874756, -3.0737329788595322, -0.015637140933904645, -0.026444177111075787),
        (2.5, 0.001060470356605947, -0.5287171433519633, -0.00024921401767551924, 0.00017392546367848215),
        (2.5, 0.26177483797073364, -0.6138852877025316, -0.06204528471505387, 0.043653712944884),
        (2.5, 0.9066759347915649, -1.487798948085456, -0.23678228033300927, 0.1819925720028124),
        (2.5, 3.0165021419525146, -5.509181684232574, -0.21760877898325562, -0.37990911741424316),
        (10.0, 0.0005020005628466606, 0.21914959044915994, -2.5802916891520412e-05, 3.986068135786639e-06),
        (10.0, 0.12355039268732071, 0.14292439135712595, -0.006359329341114543, 0.0009838492749029539),
        (10.0, 0.4137190282344818, -0.6245287048434905, -0.021602351715349993, 0.003394170581288912),
        (10.0, 1.113683819770813, -5.367260004176257, -0.06477370837965613, 0.011569916192861327),
        (100.0, 0.00015686127881053835, 1.3823890133750338, -7.862870822339768e-07, 1.1824243968601272e-08),
        (100.0, 0.038582880049943924, 1.3079675450632338, -0.00019342576450542755, 2.9091166418881627e-06),
        (100.0, 0.12840445339679718, 0.5591371235945528, -0.0006445362026802821, 9.706108280140017e-06),
        (100.0, 0.3309749364852905, -4.0450124963403535, -0.0016744852494961927, 2.541820202092827e-05),
        (10000.0, 1.5666433682781644e-05, 3.686217924972632, -7.833412691558189e-10, 1.1750412834625891e-13),
        (10000.0, 0.003853204660117626, 3.611983313244104, -1.926652883894892e-07, 2.890055162382273e-11),
        (10000.0, 0.012815515510737896, 2.8650432022069965, -6.408005675023051e-07, 9.612380426443501e-11),
        (10000.0, 0.03290526568889618, -1.7270749317308256, -1.6454529026947447e-06, 2.4684638445067877e-10),
        (1000000.0, 1.5666432773286942e-06, 5.988815393591823, -7.833218344951128e-13, 1.1749830454890381e-18),
        (1000000.0, 0.00038532045437023044, 5.914580695417857, -1.92660277733941e-10, 2.88990492424208e-16),
        (1000000.0, 0.0012815515510737896, 5.167629544138977, -6.407760234305773e-10, 9.611644069867338e-16),
        (1000000.0, 0.0032905268017202616, 0.5750381891975849, -1.645265296696076e-09, 2.467900788804338e-15),
    ]
)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_derivatives_of_draws_and_densities_are_exact(dtype: Any, bound: float) -> None:
    k, theta, log_prob = (jnp.asarray(column, dtype) for column in EXACT.T[:3])
    draw = lambda k: jnp.sum(_deviation(theta, k))  # noqa: E731

    @jax.jit
    def found(k: Any) -> Any:
        firsts = jax.grad(draw)(k), jax.jvp(lambda k: _deviation(theta, k), (k,), (jnp.ones_like(k),))[1]
        modes = (jax.jacfwd, jax.jacrev)
        along = lambda fn: jax.jvp(fn, (k,), (jnp.ones_like(k),))[1]  # noqa: E731
        seconds = [along(jax.grad(draw)), jax.grad(lambda k: jnp.sum(jax.grad(draw)(k)))(k)]
        seconds += [jnp.diagonal(outer(inner(draw))(k)) for outer in modes for inner in modes]
        return firsts, seconds, laws.VonMises(0.0, k).log_prob(theta)

    firsts, seconds, densities = found(k)
    for first in firsts:
        assert first.dtype == dtype
        np.testing.assert_allclose(first, EXACT[:, 3], rtol=bound)
    for second in seconds:
        np.testing.assert_allclose(second, EXACT[:, 4], rtol=10 * bound)
    np.testing.assert_allclose(densities, log_prob, rtol=bound, atol=bound)


def test_draws_follow_the_law_and_turn_with_loc() -> None:
    loc, k = np.array([0.0, 3.0, -50.0]), np.array([[1e-4], [0.7], [5.0], [1e3], [1e6]])
    dist = laws.VonMises(jnp.asarray(loc, jnp.float32), jnp.asarray(k, jnp.float32))
    keys = jax.random.split(jax.random.key(0), 3_000)

    @jax.jit
    @jax.vmap
    def draw(key: Any) -> Any:
        make = lambda loc: laws.VonMises(loc, dist.concentration).sample(key)  # noqa: E731
        return jax.jvp(make, (dist.loc,), (jnp.ones_like(dist.loc),))

    x, slope = map(np.asarray, draw(keys))
    assert (slope == 1).all() and (x >= -np.pi).all() and (x < np.pi).all() and x.dtype == np.float32
    for i, j in np.ndindex(dist.batch_shape):
        deviation = (x[:, i, j].astype(float) - np.float32(loc[j]) + np.pi) % (2 * np.pi) - np.pi
        if k[i, 0] * 1e-12 * (1 + loc[j] ** 2) < 1e-8:  # where float32 has the digits of an angle
            assert scipy.stats.kstest(deviation, scipy.stats.vonmises(k[i, 0]).cdf).pvalue > 1e-3


def test_distribution_function_and_its_derivatives() -> None:
    loc, k = jnp.asarray([0.0, 1.0, 3.0, -2.0]), jnp.asarray([0.7, 30.0, 2.0, 1e-3])
    x = jnp.asarray([[-3.0], [-0.3], [0.8], [2.9]])
    exact = scipy.stats.vonmises(np.asarray(k), loc=np.asarray(loc))
    cdf = jax.jit(lambda loc, k, x: laws.VonMises(loc, k).cdf(x))
    np.testing.assert_allclose(cdf(loc, k, x), exact.cdf(x) - exact.cdf(-np.pi), rtol=1e-10, atol=1e-13)
    np.testing.assert_array_equal(cdf(loc, k, jnp.asarray([[-4.0], [4.0]])), np.repeat([[0.0], [1.0]], 4, 1))
    arguments = jnp.broadcast_arrays(loc[None], k[None], x)
    ones = jnp.ones(arguments[2].shape)
    for i in range(3):
        moved = lambda t: cdf(*arguments[:i], arguments[i] + t * ones, *arguments[i + 1 :])  # noqa: E731, B023
        step = 1e-5
        slope = (moved(step) - moved(-step)) / (2 * step)
        _, tangent = jax.jvp(moved, (0.0,), (1.0,))
        np.testing.assert_allclose(tangent, slope, rtol=1e-6, atol=1e-8)


def test_gradient_of_the_mean_direction() -> None:
    """`E[cos(x - 1)] = A(k) cos(loc - 1)`."""
    params, num = jnp.asarray([0.4, 2.0]), 10_000
    mean = lambda p: special.i1e(p[1]) / special.i0e(p[1]) * jnp.cos(p[0] - 1)  # noqa: E731
    cost = lambda p, key: jnp.cos(laws.VonMises(p[0], p[1]).sample(key) - 1)  # noqa: E731
    slopes = jax.jit(jax.vmap(jax.grad(cost), (None, 0)))(params, jax.random.split(jax.random.key(1), num))
    error, exact = np.std(slopes, 0) / np.sqrt(num), jax.grad(mean)(params)
    assert (np.abs(np.mean(slopes, 0) - exact) < 5 * error).all() and (5 * error < 0.1 * np.linalg.norm(exact)).all()


def test_nothing_is_nan_in_float32() -> None:
    k = jnp.asarray([1e-30, 1e-4, 0.3, 18.0, 20.0, 1e4, 1e6, 1e12, 1e30], jnp.float32)

    def cost(k: Any, key: Any) -> Any:
        dist = laws.VonMises(jnp.zeros_like(k), k)
        x = dist.sample(key)
        return jnp.sum(x), (x, dist.log_prob(x), dist.cdf(x))

    keys = jax.random.split(jax.random.key(2), 500)
    gradients, others = jax.jit(jax.vmap(jax.grad(cost, has_aux=True), (None, 0)))(k, keys)
    for leaf in (gradients, *others):
        assert np.isfinite(leaf).all() and leaf.dtype == np.float32


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"VonMises\(concentration=...\)` must be positive"):
        laws.VonMises(0.0, 0.0)
    with pytest.raises(ValueError, match=r"VonMises\(loc=...\)` must be finite"):
        laws.VonMises(np.inf, 1.0)
