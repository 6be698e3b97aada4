"""The inverse Gaussian law: draws, densities, and derivatives of draws against exact ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mcgrad import distributions as laws
from mcgrad.distributions.inverse_gaussian import _draw

# Mean, concentration, draw, distribution function, log density, the derivatives of the draw in the mean and in the
# concentration at a fixed quantile, and its second derivatives (mean twice, both, concentration twice): mpmath with 60 digits,
# `diff` of the elementary distribution function. Draws are exact in float32.
EXACT = np.array(
    [
        (
            1.0,
            1.0,
            0.07921847701072693,
            0.0009999999338394087,
            -2.466888034999155,
            0.010962034799004094,
            0.06825644221172283,
            -0.01834843070592608,
            0.01834843070592608,
            -0.01834843070592608,
        ),
        (
            1.0,
            1.0,
            0.42974191904067993,
            0.3000000043601068,
            -0.030442844728650723,
            0.2223087811635249,
            0.20743313787715503,
            -0.2029220879222481,
            0.2029220879222481,
            -0.2029220879222481,
        ),
        (
            1.0,
            1.0,
            1.0851197242736816,
            0.6999999986733879,
            -1.0448125326172502,
            0.9520043219477164,
            0.1331154023259652,
            -0.29398317989144246,
            0.29398317989144246,
            -0.29398317989144246,
        ),
        (
            1.0,
            1.0,
            8.354865074157715,
            0.9990000000940784,
            -7.340482460486755,
            13.785185387944338,
            -5.430320313786624,
            9.462415234118858,
            -9.462415234118858,
            9.462415234118858,
        ),
        (
            1.5,
            0.25,
            0.022452887147665024,
            0.0009999998660080195,
            -1.3193750930033195,
            0.0004102569297095076,
            0.08735000701240304,
            -0.0005290622543982375,
            0.003174373526389425,
            -0.01904624115833655,
        ),
        (
            1.5,
            0.25,
            0.19334888458251953,
            0.2999999985667388,
            0.36222817165707044,
            0.021509038944997682,
            0.644341304660092,
            -0.023534674094810543,
            0.14120804456886327,
            -0.8472482674131796,
        ),
        (
            1.5,
            0.25,
            0.9223024249076843,
            0.7000000050748354,
            -1.5108653034178938,
            0.2813637268675021,
            2.001027338425725,
            -0.2080655229631965,
            1.2483931377791788,
            -7.490358826675074,
        ),
        (
            1.5,
            0.25,
            41.93421173095703,
            0.9989999998649107,
            -9.382231340539544,
            46.71366199191483,
            -112.54512502766087,
            20.317586685495776,
            -121.90552011297466,
            731.4331206778479,
        ),
        (
            0.25,
            0.0010000000474974513,
            9.229373972630128e-05,
            0.0009999998364475973,
            4.149498685966986,
            2.5227622008213936e-07,
            0.09223066629055916,
            -2.01655284871154e-06,
            0.0005041381882326059,
            -0.12603454107183198,
        ),
        (
            0.25,
            0.0010000000474974513,
            0.000926332431845367,
            0.3000000051747886,
            5.5678294702655755,
            1.829353413567046e-05,
            0.921759004530246,
            -0.00014556419449866654,
            0.03639104689618466,
            -9.097761291925691,
        ),
        (
            0.25,
            0.0010000000474974513,
            0.006605671253055334,
            0.7000000041342704,
            3.085178544888031,
            0.0005085478642495014,
            6.478533979279106,
            -0.003990706213041897,
            0.9976765058733829,
            -249.41911462157347,
        ),
        (
            0.25,
            0.0010000000474974513,
            46.54144287109375,
            0.9989999999705939,
            -10.501673192840066,
            226.24614272871543,
            -10020.092335156256,
            10.48006553712106,
            -2620.0162598361703,
            655004.0338480204,
        ),
        (
            2.0,
            20000.0,
            1.9390467405319214,
            0.000999999557257814,
            -1.7506007256917586,
            0.9544969993060578,
            1.5026370959902842e-06,
            -0.011164264096641743,
            1.1164264096641742e-06,
            -1.1164264096641743e-10,
        ),
        (
            2.0,
            20000.0,
            1.9894400835037231,
            0.2999994849169083,
            2.8608957176146497,
            0.9920622504229931,
            2.657791328868453e-07,
            -0.002002170610499279,
            2.002170610499279e-07,
            -2.0021706104992786e-11,
        ),
        (
            2.0,
            20000.0,
            2.0104148387908936,
            0.6999990337222987,
            2.85040992284408,
            1.0077926974039084,
            -2.585278008461652e-07,
            0.0019296668446778626,
            -1.9296668446778626e-07,
            1.9296668446778627e-11,
        ),
        (
            2.0,
            20000.0,
            2.0626630783081055,
            0.9990000022816017,
            -1.812404865942088,
            1.0472127669493974,
            -1.58812277953447e-06,
            0.012019070404070182,
            -1.2019070404070182e-06,
            1.201907040407018e-10,
        ),
        (
            1.0,
            0.0010000000474974513,
            9.234106983058155e-05,
            0.0009999997837488257,
            4.148507117470979,
            1.5786700037635422e-08,
            0.09232527874532848,
            -3.156691467646599e-08,
            3.1566913177118065e-05,
            -0.03156691167777022,
        ),
        (
            1.0,
            0.0010000000474974513,
            0.0009297762881033123,
            0.2999999994326345,
            5.561269419534625,
            1.1525923881260577e-06,
            0.9286236516079295,
            -2.302083102806106e-06,
            0.002302082993463031,
            -2.302082884119961,
        ),
        (
            1.0,
            0.0010000000474974513,
            0.006702409125864506,
            0.6999999966649958,
            3.0615128239804643,
            3.2714699624828664e-05,
            6.669694109446206,
            -6.51123824895827e-05,
            0.06511237939691063,
            -65.11237630423871,
        ),
        (
            1.0,
            0.0010000000474974513,
            190.6096954345703,
            0.9989999999883888,
            -12.342465411145618,
            151.76435877333336,
            38845.33481618255,
            -95.95095581852965,
            95950.95126110401,
            -95950946.7036786,
        ),
        (
            3.0,
            30000000.0,
            2.9970695972442627,
            0.0009998819029419736,
            1.2675981676930983,
            0.9985350123103294,
            4.8818677109148115e-11,
            -0.00024402216542165453,
            2.4402216542165452e-11,
            -2.440221654216545e-18,
        ),
        (
            3.0,
            30000000.0,
            2.999502420425415,
            0.30000702134314516,
            5.904175533838601,
            0.9997511920968727,
            8.294804493234681e-12,
            -4.148005944439949e-05,
            4.148005944439949e-12,
            -4.148005944439949e-19,
        ),
        (
            3.0,
            30000000.0,
            3.000497341156006,
            0.6999853159133566,
            5.903855449877397,
            1.0002486524420027,
            -8.287205666732134e-12,
            4.142998136900366e-05,
            -4.142998136900366e-12,
            4.1429981369003657e-19,
        ),
        (
            3.0,
            30000000.0,
            3.0029330253601074,
            0.9990003225706957,
            1.265455989060398,
            1.0014667264887962,
            -4.890513687604502e-11,
            0.0002445969632123535,
            -2.4459696321235353e-11,
            2.4459696321235352e-18,
        ),
        (
            1000.0,
            1.0,
            0.09234106540679932,
            0.0009999997813060289,
            -2.7592481156644144,
            1.5786698525535578e-08,
            0.09232527870827378,
            -3.15669116531979e-11,
            3.1566911653197897e-08,
            -3.15669116531979e-05,
        ),
        (
            1000.0,
            1.0,
            0.9297762513160706,
            0.3000000013369575,
            -1.3464858196297438,
            1.15259229482774e-06,
            0.9286236590212428,
            -2.302082916590135e-09,
            2.3020829165901353e-06,
            -0.0023020829165901354,
        ),
        (
            1000.0,
            1.0,
            6.702408790588379,
            0.6999999962702091,
            -3.8462424039511505,
            3.271469638520585e-05,
            6.669694094203173,
            -6.511237605723019e-08,
            6.511237605723019e-05,
            -0.06511237605723019,
        ),
        (
            1000.0,
            1.0,
            20000.0,
            0.9952971242895808,
            -15.783194862008864,
            6.322211778756347,
            13677.788221243653,
            -0.009079599677569033,
            9.079599677569032,
            -9079.599677569033,
        ),
    ]
)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_derivatives_of_draws_and_densities_are_exact(dtype: Any, bound: float) -> None:
    mean, concentration, x, cdf, log_prob = (jnp.asarray(column, dtype) for column in EXACT.T[:5])
    one, zero = jnp.ones_like(mean), jnp.zeros_like(mean)

    @jax.jit
    def found(mean: Any, concentration: Any) -> Any:
        along = lambda fn, *tangents: jax.jvp(fn, (mean, concentration), tangents)[1]  # noqa: E731
        draw = lambda m, c: _draw(x, m, c)  # noqa: E731
        gradient = jax.grad(lambda m, c: jnp.sum(draw(m, c)), (0, 1))
        reverse = lambda i: jax.grad(lambda m, c: jnp.sum(gradient(m, c)[i]), (0, 1))(mean, concentration)  # noqa: E731
        firsts = (*gradient(mean, concentration), along(draw, one, zero), along(draw, zero, one))
        forward = along(gradient, one, zero), along(gradient, zero, one)
        dist = laws.InverseGaussian(mean, concentration)
        return firsts, forward, (reverse(0), reverse(1)), dist.log_prob(x), dist.cdf(x)

    firsts, *seconds, densities, probabilities = found(mean, concentration)
    for first, exact in zip(firsts, (*EXACT.T[5:7], *EXACT.T[5:7]), strict=True):
        assert first.dtype == dtype
        np.testing.assert_allclose(first, exact, rtol=bound)
    if dtype == np.float64:
        for (mean_mean, mean_both), (both_mean, both_both) in seconds:
            for second, exact in zip((mean_mean, mean_both, both_mean, both_both), EXACT.T[[7, 8, 8, 9]], strict=True):
                np.testing.assert_allclose(second, exact, rtol=1e-9)
    np.testing.assert_allclose(densities, log_prob, rtol=bound, atol=bound)
    np.testing.assert_allclose(probabilities, cdf, rtol=100 * bound)


def test_draws_follow_the_law_and_the_distribution_function_differentiates() -> None:
    mean, concentration = np.array([0.5, 3.0]), np.array([[0.02], [1.0], [1e5]])
    dist = laws.InverseGaussian(mean, concentration)
    draws = np.asarray(jax.jit(jax.vmap(dist.sample))(jax.random.split(jax.random.key(0), 4_000)))
    for i, j in np.ndindex(dist.batch_shape):
        exact = scipy.stats.invgauss(mean[j] / concentration[i, 0], scale=concentration[i, 0])
        assert scipy.stats.kstest(draws[:, i, j], exact.cdf).pvalue > 1e-3
    x = jnp.asarray([0.3, 2.0])
    cdf = jax.jit(lambda x, mean, concentration: laws.InverseGaussian(mean, concentration).cdf(x))
    point, step = (x, jnp.asarray(mean), jnp.ones(2)), 1e-6
    for i in range(3):
        moved = lambda t: cdf(*point[:i], point[i] + t, *point[i + 1 :])  # noqa: E731, B023
        _, tangent = jax.jvp(moved, (0.0,), (1.0,))
        np.testing.assert_allclose(tangent, (moved(step) - moved(-step)) / (2 * step), rtol=1e-7)
    assert (dist.cdf(-1.0) == 0).all() and (dist.log_prob(0.0) == -np.inf).all()


def test_gradient_of_a_mean_where_that_of_jax_is_wrong() -> None:
    """The derivative of the mean is 1. JAX differentiates the root that its sampler took, and not the choice between the two."""
    programs = (
        lambda mean, key: laws.InverseGaussian(mean, 1.0).sample(key),
        lambda mean, key: jax.random.wald(key, mean),
    )
    keys, off = jax.random.split(jax.random.key(1), 20_000), []
    for program in programs:
        slopes = jax.jit(jax.vmap(jax.grad(program), (None, 0)))(1.5, jax.random.clone(keys))
        error = jnp.std(slopes) / np.sqrt(len(keys))
        assert 5 * error < 0.1
        off.append(abs(jnp.mean(slopes) - 1) / error)
    assert off[0] < 5 and off[1] > 10


def test_nothing_is_nan_in_float32() -> None:
    mean = jnp.asarray([1.0, 1.0, 1.0, 1e-18, 1e18, 1e-10, 1e10, 1e4], jnp.float32)
    concentration = jnp.asarray([1e-6, 1e8, 1.0, 1e-18, 1e18, 1e-2, 1e2, 1e-4], jnp.float32)

    def cost(params: Any, key: Any) -> Any:
        dist = laws.InverseGaussian(*params)
        x = dist.sample(key)
        return jnp.sum(x), (x, dist.log_prob(x), dist.cdf(x))

    keys = jax.random.split(jax.random.key(2), 500)
    gradients, others = jax.jit(jax.vmap(jax.grad(cost, has_aux=True), (None, 0)))((mean, concentration), keys)
    for leaf in (*gradients, *others):
        assert np.isfinite(leaf).all() and leaf.dtype == np.float32


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"InverseGaussian\(mean=...\)` must be positive"):
        laws.InverseGaussian(0.0, 1.0)
    with pytest.raises(ValueError, match=r"InverseGaussian\(concentration=...\)` must be positive"):
        laws.InverseGaussian(1.0, -1.0)
