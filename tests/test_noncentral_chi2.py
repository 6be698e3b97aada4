"""The noncentral chi-squared law: derivatives of draws and densities against exact ones, moments, corners."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_unbiased, central_difference

from mcgrad import distributions as laws
from mcgrad.distributions.noncentral_chi2 import _draw, _velocity

# Degrees of freedom, noncentrality, draw, its derivatives in both at a fixed quantile, log density: by mpmath with 60 digits. In
# the degrees of freedom from the difference of sums of Poisson weights times gammainc(df / 2 + j, 0, x / 2, regularized=True) at
# distances of 1e-18, in the noncentrality the ratio of the densities for df + 2 and df, in terms of besseli.
EXACT = np.array(
    [
        (
            0.019999999552965164,
            1.0,
            4.630494210289271e-09,
            4.473720081999129e-06,
            2.3152468915296508e-07,
            13.892284956891583,
        ),
        (0.019999999552965164, 1.0, 9.232763290405273, 1.9227391224842323, 3.722682373848283, -5.496362730538343),
        (0.5, 3.0, 5.4459856073663104e-06, 0.00013708844883707517, 1.089182885475573e-05, 6.129178149898744),
        (0.5, 3.0, 2.460391044616699, 1.0975514593786928, 1.0156700116888235, -2.1227073360054565),
        (0.5, 3.0, 15.706134796142578, 1.5346284916772597, 2.380453075527138, -5.709542690691199),
        (1.0, 0.0, 0.00015708785213064402, 0.0014905868760389995, 0.00015708785213064402, 3.460335593571507),
        (1.0, 0.0, 0.4549364149570465, 0.8583674355103157, 0.4549364149570465, -0.7526079321112422),
        (1.0, 0.0, 6.634896755218506, 3.0148309512818154, 6.634896755218506, -5.182558464330368),
        (
            1.0,
            0.0010000000474974513,
            0.00015724502736702561,
            0.0014919210382223324,
            0.0001572450191250262,
            3.4593355655558957,
        ),
        (1.0, 0.0010000000474974513, 0.4553915560245514, 0.8587708041657084, 0.45532244145448514, -0.7536077990257425),
        (1.0, 0.0010000000474974513, 6.6415276527404785, 3.011216211138748, 6.626863311742037, -5.183556267547243),
        (1.0, 10.0, 0.7007690668106079, 0.5144604580096288, 0.2620761326454441, -4.132470469488863),
        (1.0, 10.0, 10.0, 1.0177951803453074, 0.9999999958776927, -2.763378258200487),
        (1.0, 10.0, 30.125009536743164, 1.3137219291897544, 1.7356557705012554, -6.020710631315195),
        (3.0, 1.5, 0.18857742846012115, 0.19803747433907884, 0.061704816806008776, -2.550642888238268),
        (3.0, 1.5, 3.6687448024749756, 1.0333045797082292, 0.9261980399432439, -2.062531274343453),
        (3.0, 1.5, 15.9096097946167, 1.6075506687630015, 2.590453292986806, -5.634558524814245),
        (3.0, 300.0, 226.68539428710938, 0.930345560243654, 0.8659295618583522, -7.02780553714175),
        (3.0, 300.0, 302.0010986328125, 1.0005529594150888, 0.9999962878660219, -4.465639907692398),
        (3.0, 300.0, 388.1285705566406, 1.0647608946949556, 1.1341032151630954, -7.297297680484401),
        (40.0, 5.0, 25.012537002563477, 0.7608610913974977, 0.5844219092435442, -5.530938482557231),
        (40.0, 5.0, 44.268211364746094, 1.0013129759596442, 0.9891764593115582, -3.212325683219122),
        (40.0, 5.0, 71.43265533447266, 1.2279034813470147, 1.5107040253414028, -6.227786393994987),
        (1000.0, 50.0, 943.9688110351562, 0.9502754384759781, 0.9032504543469771, -7.401906324473143),
        (1000.0, 50.0, 1049.3031005859375, 1.0000274768819701, 0.9994488756185418, -4.766661133745196),
        (1000.0, 50.0, 1162.1800537109375, 1.0494825617797416, 1.101611781930689, -7.54029282002304),
        (2.0, 5000.0, 4677.39990234375, 0.9834015558706222, 0.9671021352678465, -8.543231555264962),
        (2.0, 5000.0, 5001.0, 1.0000333290002237, 0.9999999899999997, -5.8707323019733195),
        (2.0, 5000.0, 5335.42333984375, 1.0163042765378758, 1.0328978983361066, -8.609044721124022),
    ]
)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_derivatives_of_draws_and_densities_are_exact(dtype: Any, bound: float) -> None:
    df, noncentrality, x = (jnp.asarray(column, dtype) for column in EXACT.T[:3])
    for found, exact in zip(_velocity(x, df, noncentrality), EXACT.T[3:5], strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, exact, rtol=bound)
    density = jax.jit(lambda df, noncentrality: laws.NoncentralChi2(df, noncentrality).log_prob(x))(df, noncentrality)
    np.testing.assert_allclose(density, EXACT[:, 5], rtol=bound, atol=bound * (10 if dtype == np.float32 else 1))


@pytest.mark.slow
def test_distribution_function_and_its_derivatives() -> None:
    """By SciPy, which has some ten digits; the derivatives are those of the table."""
    df, noncentrality, x = map(jnp.asarray, EXACT.T[:3])
    cdf = lambda df, noncentrality, x: laws.NoncentralChi2(df, noncentrality).cdf(x)  # noqa: E731
    value, pullback = jax.jit(lambda *args: jax.vjp(cdf, *args))(df, noncentrality, x)
    exact = [
        scipy.stats.ncx2.cdf(point, k, c) if c > 0 else scipy.stats.chi2.cdf(point, k) for k, c, point in EXACT[:, :3]
    ]
    np.testing.assert_allclose(value, exact, rtol=1e-9)
    in_df, in_noncentrality, in_x = pullback(jnp.ones_like(x))
    np.testing.assert_allclose(in_x, np.exp(EXACT[:, 5]), rtol=1e-10)
    np.testing.assert_allclose(in_df, -in_x * EXACT[:, 3], rtol=1e-10)
    np.testing.assert_allclose(in_noncentrality, -in_x * EXACT[:, 4], rtol=1e-10)
    assert laws.NoncentralChi2(1.0, 1.0).cdf(-1.0) == 0


def test_second_derivatives_also_at_noncentrality_zero() -> None:
    """The derivative of `v(x(p), p)` along the draw, `v_p + v_x v`, against differences of `v`."""
    point = (np.array([2.0, 0.7, 9.0]), np.array([0.5, 3.0, 4.0]), np.array([1.5, 0.4, 0.0]))
    velocity = jax.jit(lambda *point: jnp.stack(_velocity(*point)))
    rate = np.asarray(velocity(*point))
    partial = []
    for i in range(3):
        step = np.maximum(point[i], 1.0) * 1e-2
        if i == 2:
            step[2] = 1e-3  # to one side of zero
        moved = lambda t: np.asarray(velocity(*point[:i], point[i] + t * step, *point[i + 1 :]))  # noqa: E731, B023
        if i == 2:
            forward = np.array([-137 / 60, 5, -5, 10 / 3, -5 / 4, 1 / 5])
            partial.append(sum(w * moved(t) for t, w in enumerate(forward)) / step)
        else:
            partial.append(central_difference(moved, 0.0, 1.0) / step)
    of_x, of_df, of_noncentrality = partial
    exact = np.stack([of_df + of_x * rate[0], of_noncentrality + of_x * rate[1]])  # [second, first, entry]
    draw = lambda p: jnp.sum(_draw(jnp.asarray(point[0]), *p))  # noqa: E731
    hessian = jax.jit(jax.jacrev(jax.grad(draw)))(tuple(map(jnp.asarray, point[1:])))
    for first in range(2):
        for second in range(2):
            np.testing.assert_allclose(np.diagonal(hessian[first][second]), exact[second, first], rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_draws_follow_the_law_and_moments() -> None:
    """`E[x^2] = (k + c)^2 + 2 (k + 2 c)`; at one degree of freedom and below, too."""
    params = jnp.asarray([0.6, 2.0])

    def cost(p: Any, key: Any) -> Any:
        return laws.NoncentralChi2(p[0], p[1]).sample(jax.random.clone(key)) ** 2

    exact = lambda p: (p[0] + p[1]) ** 2 + 2 * (p[0] + 2 * p[1])  # noqa: E731
    both = lambda fn: lambda p, *args: (fn(p, *args), jax.grad(fn)(p, *args))  # noqa: E731
    keys = jax.random.split(jax.random.key(1), 40_000)
    draws = jax.jit(lambda keys: jax.lax.map(lambda key: both(cost)(params, key), keys, batch_size=1_000))(keys)
    for found, wanted in zip(draws, both(exact)(params), strict=True):
        assert_unbiased(found, wanted)
    x = np.sqrt(draws[0][:5_000])
    assert scipy.stats.kstest(x, scipy.stats.ncx2(0.6, 2.0).cdf).pvalue > 1e-3


@pytest.mark.slow
def test_nothing_is_nan_in_float32() -> None:
    df = jnp.asarray([1e-4, 1.0, 1.0, 3.0, 1e6, 1.0], jnp.float32)
    noncentrality = jnp.asarray([1e-3, 0.0, 1e-20, 1e8, 1.0, 1e4], jnp.float32)

    def cost(params: Any, key: Any) -> Any:
        dist = laws.NoncentralChi2(*params)
        x = dist.sample(key)
        return jnp.sum(x), (x, dist.log_prob(x))

    keys = jax.random.split(jax.random.key(2), 50)
    slopes, others = jax.jit(jax.vmap(jax.grad(cost, has_aux=True), (None, 0)))((df, noncentrality), keys)
    for leaf in (*slopes, *others):
        assert np.isfinite(leaf).all() and leaf.dtype == np.float32


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"NoncentralChi2\(df=...\)` must be positive"):
        laws.NoncentralChi2(0.0, 1.0)
    with pytest.raises(ValueError, match=r"NoncentralChi2\(noncentrality=...\)` must lie between 0 and 4e9"):
        laws.NoncentralChi2(1.0, -1.0)
    assert laws.NoncentralChi2(1.0, 1.0).log_prob(-1.0) == -np.inf
