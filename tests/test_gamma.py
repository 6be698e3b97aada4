"""The gamma law and its relatives: derivatives of draws against exact ones, moments, corners."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from distributions import call
from helpers import assert_unbiased
from jax.scipy import special

from mcgrad import distributions as laws
from mcgrad.distributions.numerics.gamma import log_gamma_velocity, log_ratio_velocity
from mcgrad.distributions.numerics.gamma_rejection import log_ratio_to_mean, standard_gamma
from mcgrad.distributions.numerics.simplex import softmax

# Concentration, draw, d log(draw) / d concentration at a fixed quantile: by mpmath with 40 digits, from
# quad(lambda s: exp(-a * s - x * expm1(-s)) * (digamma(a) - log(x) + s), [0, breakpoints at powers of 2, inf]).
EXACT = np.array(
    [
        (9.999999747378752e-05, 2.5365732653881423e-05, 100053.395968257),
        (9.999999747378752e-05, 3.2106680870056152, 2479.6168731599155),
        (0.009999999776482582, 1.5035936485219281e-05, 1054.4353946846165),
        (0.009999999776482582, 1.5090841054916382, 45.37691379417478),
        (0.009999999776482582, 7.151253700256348, 12.766018006665364),
        (0.30000001192092896, 3.2364403854383966e-14, 102.97508373211049),
        (0.30000001192092896, 0.00032372461282648146, 26.22858978690068),
        (0.30000001192092896, 0.10272544622421265, 7.819449454015337),
        (0.30000001192092896, 0.884810745716095, 2.933946619381442),
        (0.30000001192092896, 6.69465970993042, 0.7552268046265401),
        (1.0, 0.00010000500333262607, 9.63358137152954),
        (1.0, 0.10536051541566849, 2.846988802194663),
        (1.0, 0.7985076904296875, 1.3077962166891737),
        (1.0, 2.3025851249694824, 0.7535643297713792),
        (1.0, 9.21034049987793, 0.31446112383775526),
        (5.0, 0.4444601833820343, 0.5459835431152884),
        (5.0, 2.432590961456299, 0.2899053826462731),
        (5.0, 4.946107864379883, 0.20790553678215154),
        (5.0, 7.993589401245117, 0.16203747728231327),
        (5.0, 17.782007217407227, 0.10249012492479291),
        (15.899999618530273, 5.112191677093506, 0.10624202044351921),
        (15.899999618530273, 11.05148983001709, 0.07581057863216328),
        (15.899999618530273, 16.06812858581543, 0.06322267677735652),
        (15.899999618530273, 21.176176071166992, 0.05488331009356286),
        (15.899999618530273, 35.13935852050781, 0.04164441863169907),
        (16.100000381469727, 5.221088409423828, 0.10454361912702863),
        (16.100000381469727, 11.219156265258789, 0.07476929511919679),
        (16.100000381469727, 16.27129364013672, 0.06242714130259901),
        (16.100000381469727, 21.408517837524414, 0.0542395808750237),
        (16.100000381469727, 35.43174362182617, 0.041219967156048476),
        (100.0, 67.00773620605469, 0.012155163201333592),
        (100.0, 87.41763305664062, 0.01070524864273554),
        (100.0, 100.92630004882812, 0.009970575508594379),
        (100.0, 113.0105209350586, 0.009416586705136051),
        (100.0, 141.53012084960938, 0.00837752510686309),
        (10000.0, 9632.3681640625, 0.00010188618810095887),
        (10000.0, 9872.060546875, 0.00010064688375708079),
        (10000.0, 10012.23828125, 9.99405241373698e-05),
        (10000.0, 10128.3671875, 9.936526049788313e-05),
        (10000.0, 10376.185546875, 9.81665880798008e-05),
        (100000000.0, 99962808.0, 1.000186007788004e-08),
        (100000000.0, 99987184.0, 1.000064087142295e-08),
        (100000000.0, 100001256.0, 9.999937217192403e-09),
        (100000000.0, 100012816.0, 9.999359271410288e-09),
        (100000000.0, 100037192.0, 9.998140877616613e-09),
    ]
)

# Concentration, log(draw / concentration), its derivative: as above (by the series of the incomplete gamma function), less 1 / a.
EXACT_LOG_RATIO = np.array(
    [
        (0.05000000074505806, -181.74813842773438, 3664.9204593130103),
        (0.05000000074505806, -29.730087280273438, 624.5594816687042),
        (0.05000000074505806, 1.1526732444763184, 14.52158397149559),
        (0.05000000074505806, 4.527014255523682, -15.921564113954993),
        (0.30000001192092896, -29.857744216918945, 99.64174972780525),
        (0.30000001192092896, -4.518888473510742, 15.232001871125833),
        (0.30000001192092896, 1.325811505317688, -0.7872707639559502),
        (0.30000001192092896, 3.10528302192688, -2.578106457702797),
        (0.8999999761581421, -10.171648979187012, 10.703773399388801),
        (0.8999999761581421, -1.6353750228881836, 1.507206477299904),
        (0.8999999761581421, 1.010411024093628, -0.3418509494421652),
        (0.8999999761581421, 2.293102502822876, -0.7731585479856208),
        (1.0, -9.21028995513916, 8.63358098694288),
        (1.0, -1.499940037727356, 1.2173647011202013),
        (1.0, 0.9780479073524475, -0.30650279508069156),
        (1.0, 2.2203269004821777, -0.6855388934681014),
        (2.5, -4.108313083648682, 1.3397903367936304),
        (2.5, -0.7582045197486877, 0.20839409901334183),
        (2.5, 0.7120698094367981, -0.10686648321324087),
        (2.5, 1.6387959718704224, -0.23177512709357387),
        (3.5, -3.149993419647217, 0.6875625223889945),
        (3.5, -0.6050520539283752, 0.11325580974742572),
        (3.5, 0.6257633566856384, -0.07015429989430959),
        (3.5, 1.4511957168579102, -0.15296976629173642),
        (7.0, -1.915964126586914, 0.18488860833404488),
        (7.0, -0.3912106156349182, 0.03389076675593833),
        (7.0, 0.4718219041824341, -0.0283757448061557),
        (7.0, 1.1123106479644775, -0.06320138546574337),
        (9.0, -1.6219701766967773, 0.11728716599691534),
        (9.0, -0.3364869952201843, 0.022174289178991755),
        (9.0, 0.42399299144744873, -0.02023249182811927),
        (9.0, 1.0053062438964844, -0.04547398619128773),
        (60.0, -0.5286487340927124, 0.004850888309939883),
        (60.0, -0.11648132652044296, 0.0010386165889351283),
        (60.0, 0.17951618134975433, -0.001408938186970622),
        (60.0, 0.4400060176849365, -0.0033619920559348525),
        (10000.0, -0.0374559722840786, 1.8861876017526284e-06),
        (10000.0, -0.008461485616862774, 4.253446601411399e-07),
        (10000.0, 0.014688570983707905, -7.309761437482299e-07),
        (10000.0, 0.03692824766039848, -1.8334124875207114e-06),
        (50000000.0, -0.0005260011530481279, 5.260539343368593e-12),
        (50000000.0, -0.00011903224367415532, 1.1904127218345265e-12),
        (50000000.0, 0.0002086944441543892, -2.0868051928817794e-12),
        (50000000.0, 0.0005258955643512309, -5.2584280508022225e-12),
    ]
)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_derivative_of_a_draw_is_exact(dtype: Any, bound: float) -> None:
    a, x = (jnp.asarray(column, dtype) for column in EXACT.T[:2])
    velocity = log_gamma_velocity(x, jnp.log(x), a)
    assert velocity.dtype == dtype
    np.testing.assert_allclose(velocity, EXACT[:, 2], rtol=bound)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-11), (np.float32, 1e-5)])
def test_derivative_of_a_draw_over_its_mean_is_exact(dtype: Any, bound: float) -> None:
    """What Student's t and the F law are made of: for large concentrations a small difference of two derivatives."""
    a, log_ratio = (jnp.asarray(column, dtype) for column in EXACT_LOG_RATIO.T[:2])
    velocity = jax.jit(log_ratio_velocity)(log_ratio, a)
    assert velocity.dtype == dtype
    np.testing.assert_allclose(velocity, EXACT_LOG_RATIO[:, 2], rtol=bound)


def test_draws_over_their_mean_are_those_of_the_law() -> None:
    a = jnp.asarray([0.01, 0.99, 1.0, 1e7], jnp.float32)
    key = jax.random.key(9)
    log_ratio, (_, log_x) = jax.jit(lambda: (log_ratio_to_mean(key, a), standard_gamma(jax.random.clone(key), a)))()
    np.testing.assert_allclose(log_ratio, log_x - jnp.log(a), rtol=1e-5, atol=3e-6)
    assert (log_ratio[3] != 0) and abs(log_ratio[3]) < 2e-3


def test_derivatives_of_shares_near_one_keep_their_digits() -> None:
    """`x (1 - x)` in float32, where `1 - x` has no digits left."""
    logits = jnp.asarray([[9.0, -2.0, -7.5], [-1.0, 13.0, 13.5], [0.3, 0.3, 0.3]], jnp.float32)
    exact = jax.jacrev(lambda y: jax.nn.softmax(y, -1))
    for take in (jax.jacfwd, jax.jacrev):
        found = jax.jit(jax.vmap(take(softmax)))(logits)
        np.testing.assert_allclose(found, jax.vmap(exact)(logits.astype(float)), rtol=2e-6)
    a, b = jnp.asarray([5.0, 0.5], jnp.float32), jnp.asarray([0.3, 0.5], jnp.float32)

    @jax.jit
    @jax.vmap
    def draws(key: Any) -> Any:
        draw = lambda a, b: laws.Beta(a, b).sample(jax.random.clone(key))  # noqa: E731
        x, pull = jax.vjp(draw, a, b)
        keys = jax.random.split(key)
        y = [laws.ExpGamma(c, jnp.float32(1.0)).sample(k) for c, k in zip((a, b), keys, strict=True)]
        velocity = [log_gamma_velocity(jnp.exp(y), y, c) for y, c in zip(y, (a, b), strict=True)]
        return x, pull(jnp.ones_like(x)), y[0] - y[1], velocity

    x, slopes, log_odds, velocity = jax.tree.map(
        lambda leaf: np.asarray(leaf, float), draws(jax.random.split(jax.random.key(8), 200))
    )
    weight = 1 / (2 + 2 * np.cosh(log_odds))
    inside = x < 1 - 1e-7
    assert (x[inside] > 1 - 1e-5).any()
    for slope, sign, v in zip(slopes, (1, -1), velocity, strict=True):
        np.testing.assert_allclose(slope[inside], (sign * weight * v)[inside], rtol=1e-5)


@pytest.mark.slow
def test_second_derivatives_of_ratios_in_every_nesting() -> None:
    """Against second differences of the quantiles of the gamma draws that they are made of."""
    params = jnp.asarray([1.7, 3.2])
    key = jax.random.key(10)
    normal, half = jax.random.split(jax.random.clone(key))
    z = jax.random.normal(normal, ())

    def draws(p: Any) -> Any:
        dists = laws.Beta(p[0], p[1]), laws.Dirichlet(jnp.stack([p[0], p[1], p[0]])), laws.StudentT(p[0], 0.3, p[1])
        return jnp.stack([jnp.ravel(dist.sample(jax.random.clone(key)))[0] for dist in dists])

    def quantiles(a: Any, at: Any, key: Any) -> Any:  # of gamma draws at concentrations `at`, moved to `a`
        x = np.exp(laws.ExpGamma(jnp.asarray(at), 1.0).sample(jax.random.clone(key)))
        return scipy.stats.gamma.ppf(scipy.stats.gamma.cdf(x, at), a)

    def moved(p: Any) -> np.ndarray:
        first, second = (
            quantiles(p[i], params[i], key) for i, key in enumerate(jax.random.split(jax.random.clone(key)))
        )
        thirds = quantiles(np.array([*p, p[0]]), np.array([*params, params[0]]), key)
        y = quantiles(p[0] / 2, params[0] / 2, half) / (p[0] / 2)
        return np.array([first / (first + second), thirds[0] / thirds.sum(), 0.3 + p[1] * float(z) / np.sqrt(y)])

    step, e = 1e-3, np.eye(2)
    shifted = lambda i, j: sum(  # noqa: E731
        s * t * moved(np.asarray(params) + step * (s * e[i] + t * e[j])) for s in (-1, 1) for t in (-1, 1)
    )
    exact = np.array([[shifted(i, j) for j in range(2)] for i in range(2)]) / (4 * step**2)

    # `jacrev` of `jacrev` is `grad` of `grad`, and `hessian` is `jacfwd` of `jacrev`
    for second in jax.jit(lambda p: [jax.hessian(draws)(p), jax.jacrev(jax.jacrev(draws))(p)])(params):
        np.testing.assert_allclose(second, exact.transpose(2, 0, 1), rtol=1e-4, atol=1e-6)


def test_derivative_where_the_draw_underflows() -> None:
    # F = x^a / Gamma(a + 1) there, so log x = (log u + log Gamma(a + 1)) / a
    a, log_x = jnp.asarray([1e-4, 1e-3, 0.02], jnp.float32), jnp.asarray([-5e4, -900.0, -200.0], jnp.float32)
    exact = (special.digamma(np.asarray(a, float) + 1) - log_x) / a
    np.testing.assert_allclose(jax.jit(log_gamma_velocity)(jnp.exp(log_x), log_x, a), exact, rtol=1e-5)


def test_second_derivatives_in_every_nesting() -> None:
    a, key = jnp.asarray([0.4, 1.2, 5.0]), jax.random.key(3)
    draw = lambda a: jnp.sum(laws.Gamma(a, 1.0).sample(jax.random.clone(key)))  # noqa: E731
    u = scipy.stats.gamma.cdf(laws.Gamma(a, 1.0).sample(jax.random.clone(key)), a)
    step = 1e-4
    quantile = [scipy.stats.gamma.ppf(u, a + sign * step) for sign in (-1, 0, 1)]
    exact = (quantile[0] - 2 * quantile[1] + quantile[2]) / step**2

    @jax.jit
    def seconds(a: Any) -> list[Any]:
        modes = (jax.jacfwd, jax.jacrev)
        return [jnp.diagonal(outer(inner(draw))(a)) for outer in modes for inner in modes]

    for second in seconds(a):
        np.testing.assert_allclose(second, exact, rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_draws_and_derivatives_are_finite_in_the_corners(dtype: Any) -> None:
    a = jnp.asarray([1e-4, 1e-2, 1.0, 1e4, 1e8], dtype)

    def draws(a: Any, key: Any) -> Any:
        return jnp.stack(
            [make(a, jnp.asarray(1.0, dtype)).sample(jax.random.clone(key)) for make in (laws.Gamma, laws.ExpGamma)]
        )

    keys = jax.random.split(jax.random.key(0), 100)
    value, velocity = jax.jit(jax.vmap(lambda key: jax.jvp(lambda a: draws(a, key), (a,), (jnp.ones_like(a),))))(keys)
    assert np.isfinite(value).all() and np.isfinite(velocity).all() and value.dtype == dtype
    assert (value[:, 0] > 0).all()


def test_gradients_of_moments_and_of_the_mean_of_the_logarithm() -> None:
    a = jnp.asarray([1e-3, 0.02, 0.3, 2.0, 40.0])
    num = 20_000

    def costs(a: Any, key: Any) -> Any:
        x = laws.Gamma(a, 2.0).sample(key)
        return jnp.stack([laws.ExpGamma(a, 2.0).sample(jax.random.clone(key)), x, x**2])

    keys = jax.random.split(jax.random.key(1), num)
    one = lambda key: jax.jvp(lambda a: costs(a, key), (a,), (jnp.ones_like(a),))  # noqa: E731
    _, slopes = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=2_000))(keys)
    exact = np.stack([special.polygamma(1, a), np.full(5, 0.5), (2 * a + 1) / 4])
    error = np.std(slopes, 0) / np.sqrt(num)
    # at small concentrations x itself is too heavy-tailed for so many draws to tell its slope; that of log x is not
    inside = np.ones_like(exact, bool)
    inside[1:, :2] = False
    assert (np.abs(np.mean(slopes, 0) - exact) < 5 * error)[inside].all()
    assert (5 * error < 0.2 * np.abs(exact))[inside].all()


def test_draws_and_densities_are_scipys() -> None:
    a, rate = np.array([0.4, 3.0]), np.array([2.0, 0.5])
    gamma, log_gamma = laws.Gamma(a, rate), laws.ExpGamma(a, rate)
    keys = jax.random.split(jax.random.key(2), 4_000)
    frozen = scipy.stats.gamma(a, scale=1 / rate)
    x, log_x = (jax.jit(jax.vmap(dist.sample))(jax.random.clone(keys)) for dist in (gamma, log_gamma))
    for i in range(2):
        one = scipy.stats.gamma(a[i], scale=1 / rate[i])
        for draws, to_gamma in ((x, np.asarray), (log_x, np.exp)):
            assert scipy.stats.kstest(to_gamma(draws[:, i]), one.cdf).pvalue > 1e-4
    x = np.array([0.3, 2.0])
    np.testing.assert_allclose(call(gamma, "log_prob", x), frozen.logpdf(x), rtol=1e-12)
    np.testing.assert_allclose(call(log_gamma, "log_prob", np.log(x)), frozen.logpdf(x) + np.log(x), rtol=1e-12)
    assert (call(gamma, "log_prob", -1.0) == -np.inf).all()


def test_distribution_function_and_its_derivatives() -> None:
    a, x = (jnp.asarray(column) for column in EXACT[EXACT[:, 0] < 1e4].T[:2])
    velocity = EXACT[EXACT[:, 0] < 1e4, 2] * x
    for name, exact, sign in (("cdf", scipy.stats.gamma.cdf(x, a), 1), ("survival", scipy.stats.gamma.sf(x, a), -1)):
        mass = lambda a, x: getattr(laws.Gamma(a, 2.0), name)(x / 2)  # noqa: E731, B023
        value, pullback = jax.jit(lambda a, x: jax.vjp(mass, a, x))(a, x)  # noqa: B023
        np.testing.assert_allclose(value, exact, rtol=1e-10)
        in_a, in_x = pullback(jnp.full_like(x, sign))
        np.testing.assert_allclose(in_x, scipy.stats.gamma.pdf(x, a), rtol=1e-10)
        np.testing.assert_allclose(in_a, -velocity * scipy.stats.gamma.pdf(x, a), rtol=1e-10)
    one = laws.Gamma(1.0, 1.0)
    assert call(one, "cdf", -1.0) == 0 and call(one, "survival", -1.0) == 1


@pytest.mark.slow
def test_mixtures_of_gamma_laws_move_with_weights_and_concentrations() -> None:
    params = jnp.asarray([0.4, 0.7, 3.0])

    def law(p: Any) -> Any:
        weights = laws.Categorical(logits=jnp.stack([p[0], jnp.zeros(())]))
        return laws.Mixture(weights, laws.Gamma(p[1:], jnp.asarray([0.5, 2.0])))

    def mean(p: Any) -> Any:
        weight = jax.nn.sigmoid(p[0])
        return weight * 2 * p[1] + (1 - weight) * p[2] / 2

    keys = jax.random.split(jax.random.key(8), 20_000)
    slopes = jax.jit(jax.vmap(jax.grad(lambda p, key: law(p).sample(key)), (None, 0)))(params, keys)
    assert_unbiased(slopes, jax.jit(jax.grad(mean))(params))


def test_refusals() -> None:
    for law in (laws.Gamma, laws.ExpGamma):
        with pytest.raises(ValueError, match=rf"{law.__name__}\(concentration=...\)` must be positive"):
            law(0.0, 1.0)
    with pytest.raises(ValueError, match=r"InverseGamma\(rate=...\)` must be positive"):
        laws.InverseGamma(1.0, -1.0)
    with pytest.raises(ValueError, match=r"Chi2\(df=...\)` must be positive"):
        laws.Chi2(0.0)
    with pytest.raises(ValueError, match=r"Beta\(concentration0=...\)` must be positive"):
        laws.Beta(1.0, np.nan)
    with pytest.raises(ValueError, match=r"Dirichlet\(concentration=...\)` must have at least 1 axes"):
        laws.Dirichlet(1.0)


RATIOS = {
    "InverseGamma": (lambda: laws.InverseGamma(3.0, 2.0), scipy.stats.invgamma(3.0, scale=2.0)),
    "StudentT": (lambda: laws.StudentT(3.0, 0.2, 2.0), scipy.stats.t(3.0, 0.2, 2.0)),
    "Chi2": (lambda: laws.Chi2(3.0), scipy.stats.chi2(3.0)),
    "F": (lambda: laws.F(3.0, 5.0), scipy.stats.f(3.0, 5.0)),
    "Beta": (lambda: laws.Beta(0.7, 2.0), scipy.stats.beta(0.7, 2.0)),
    "Dirichlet": (lambda: laws.Dirichlet(jnp.asarray([0.7, 2.0])), scipy.stats.beta(0.7, 2.0)),
}


@pytest.mark.parametrize("name", RATIOS)
def test_draws_and_densities_of_ratios_are_scipys(name: str) -> None:
    make, frozen = RATIOS[name]
    dist, x = make(), np.array([0.1, 0.4, 0.9])
    draws = jax.jit(jax.vmap(dist.sample))(jax.random.split(jax.random.key(4), 4_000))
    draws = draws[:, 0] if dist.event_ndim else draws
    assert scipy.stats.kstest(draws, frozen.cdf).pvalue > 1e-4
    points = jnp.stack([x, 1 - x], -1) if dist.event_ndim else x
    np.testing.assert_allclose(jax.jit(jax.vmap(dist.log_prob))(points), frozen.logpdf(x), rtol=1e-11)


def test_gradients_of_means_of_ratios() -> None:
    """Means: `rate / (a - 1)`, `df`, `a / (a + b)` and the same for the Dirichlet law."""
    params, num = jnp.asarray([4.0, 1.5]), 20_000

    def costs(p: Any, key: Any) -> Any:
        keys = jax.random.split(key, 4)
        dists = laws.InverseGamma(p[0], p[1]), laws.Chi2(p[0]), laws.Beta(p[0], p[1]), laws.Dirichlet(p)
        return jnp.stack([jnp.ravel(dist.sample(key))[0] for dist, key in zip(dists, keys, strict=True)])

    def means(p: Any) -> Any:
        a, b = p
        return jnp.stack([b / (a - 1), a, a / (a + b), a / (a + b)])

    keys = jax.random.split(jax.random.key(5), num)
    slopes = jax.jit(jax.vmap(jax.jacfwd(costs), (None, 0)))(params, keys)
    error, exact = np.std(slopes, 0) / np.sqrt(num), jax.jit(jax.jacfwd(means))(params)
    assert (np.abs(np.mean(slopes, 0) - exact) <= 5 * error).all()
    assert (5 * error <= 0.1 * np.linalg.norm(exact, axis=1)[:, None]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ratios_are_finite_in_the_corners(dtype: Any) -> None:
    small, large = jnp.asarray([1e-4, 1e-4, 1e6], dtype), jnp.asarray([1e-4, 1e6, 1e6], dtype)

    def draws(small: Any, large: Any, key: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key, 4)
        dists = laws.InverseGamma(small, large), laws.Chi2(small), laws.Beta(small, large), laws.Dirichlet(small)
        values = [dist.sample(key) for dist, key in zip(dists, keys, strict=True)]
        densities = [dist.log_prob(value) for dist, value in zip(dists, values, strict=True)]
        return values, densities

    ones = jnp.ones_like(small), jnp.ones_like(large)
    one = lambda key: jax.jvp(lambda s, l: draws(s, l, key), (small, large), ones)  # noqa: E731, E741
    (values, densities), (velocities, _) = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(6), 100))
    for leaf in (*values, *velocities, *densities):
        assert np.isfinite(leaf).all() and leaf.dtype == dtype


def test_gradient_of_a_mean_under_students_law() -> None:
    """`d E[x^2 / (1 + x^2)] / d(df, scale)`, against quadrature."""
    params = jnp.asarray([3.0, 1.3])
    cost = lambda x: x**2 / (1 + x**2)  # noqa: E731
    slopes = jax.jit(jax.vmap(jax.grad(lambda p, key: cost(laws.StudentT(p[0], 0.0, p[1]).sample(key))), (None, 0)))(
        params, jax.random.split(jax.random.key(7), 50_000)
    )
    x = np.sinh(np.linspace(-14, 14, 4001))
    weight = np.cosh(np.linspace(-14, 14, 4001)) * 28 / 4000
    exact = jax.jit(
        jax.grad(lambda p: jnp.sum(weight * cost(x) * jnp.exp(laws.StudentT(p[0], 0.0, p[1]).log_prob(x))))
    )(params)
    error = np.std(slopes, 0) / np.sqrt(len(slopes))
    assert (np.abs(np.mean(slopes, 0) - exact) < 5 * error).all() and (5 * error < 0.3 * np.abs(exact)).all()
    assert np.isfinite(call(laws.StudentT(np.float32(1e-4), 0.0, 1.0), "sample", jax.random.key(0)))


def test_what_is_no_concentration_gives_nan_and_ends() -> None:
    a = jnp.asarray([jnp.nan, -0.2, -1.0, 2.0], jnp.float32)
    x, log_x = jax.jit(standard_gamma)(jax.random.key(0), a)
    assert np.isnan(x[:3]).all() and np.isnan(log_x[:3]).all() and np.allclose(np.log(x[3]), log_x[3], atol=1e-5)


def test_draws_of_a_large_concentration_keep_the_law_in_float32() -> None:
    a = jnp.full(20_000, 1e7, jnp.float32)
    x, _ = jax.jit(standard_gamma)(jax.random.key(0), a)
    assert scipy.stats.kstest(np.asarray(x, float), scipy.stats.gamma(1e7).cdf).pvalue > 1e-4


@pytest.mark.parametrize("a", [1.0, 2.0, 2.5])
def test_single_precision_has_its_digits_where_the_ratio_hardly_moves(a):
    """Where the derivative changes sign, as a fraction of a tenth of its median size; the digamma function lost a digit."""
    ratio = np.linspace(-3, 1.2, 4001).astype(np.float32)
    velocity = jax.jit(log_ratio_velocity)
    exact = velocity(jnp.asarray(ratio, jnp.float64), jnp.full(ratio.shape, a))
    found = velocity(jnp.asarray(ratio), jnp.full(ratio.shape, a, jnp.float32))
    rounding = 4 * np.finfo(np.float32).eps * np.abs(ratio * np.gradient(exact, ratio.astype(np.float64)))
    error = np.maximum(np.abs(found - exact) - rounding, 0)
    assert np.max(error / np.maximum(np.abs(exact), 0.1 * np.median(np.abs(exact)))) < 2e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_distribution_function_at_large_concentrations(dtype):
    """JAX's `gammainc` gives 0.458 for 0.5004 at 1e5 in float32, and 3522 at 1e7."""
    a = np.logspace(1.3, 7, 8).astype(dtype)[:, None]
    x = (a + np.sqrt(a) * np.linspace(-3, 3, 7)).astype(dtype)
    law = laws.Gamma(jnp.asarray(a), 1.0)
    below, above = call(law, "cdf", jnp.asarray(x)), call(law, "survival", jnp.asarray(x))
    assert below.dtype == above.dtype == dtype
    # one unit in the last place of x moves the probability by so much
    rounding = np.finfo(dtype).eps * x / np.sqrt(a)
    exact = scipy.stats.gamma.cdf(x.astype(np.float64), a.astype(np.float64))
    assert np.all(np.abs(below - exact) < 1e-12 + 20 * np.finfo(dtype).eps + rounding)
    assert np.all(np.abs(above - (1 - exact)) < 1e-12 + 20 * np.finfo(dtype).eps + rounding)
