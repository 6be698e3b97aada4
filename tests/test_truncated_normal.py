"""The truncated normal law: derivatives of draws against exact ones, in the bulk, in the tails and in short intervals."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mcgrad import distributions as laws
from mcgrad.distributions import truncated_normal
from mcgrad.distributions.truncated_normal import _solve, _velocity

# loc, scale, low, high, x, cdf, log density, and -(dF/dparam) / p for each parameter: mpmath with 120 digits, derivatives by
# its `diff` of the distribution function. Points are exact in float32.
EXACT = np.array(
    [
        (
            0.25,
            1.25,
            -1.0,
            2.0,
            -0.9960770010948181,
            0.0010000056171915093,
            -1.3652852637066308,
            0.003508596222566909,
            -0.0018506393772508005,
            0.9958745528279208,
            0.0006168509495122497,
        ),
        (
            0.25,
            1.25,
            -1.0,
            2.0,
            -0.10948299616575241,
            0.2999999992727137,
            -0.9097717059065831,
            0.4401561588164636,
            -0.009375379029534286,
            0.4424968314833411,
            0.11734700970019533,
        ),
        (
            0.25,
            1.25,
            -1.0,
            2.0,
            1.5095405578613281,
            0.8999999930351842,
            -1.3760803114634852,
            0.3380426890165838,
            0.32273806736277777,
            0.10076910685437414,
            0.561188204129042,
        ),
        (
            0.0,
            1.0,
            -8.0,
            9.0,
            -3.0902323722839355,
            0.0009999997773804628,
            -5.693706590560472,
            0.999999999998501,
            -3.090232372271944,
            1.4989856906939645e-12,
            3.053014070968187e-19,
        ),
        (
            0.0,
            1.0,
            -8.0,
            9.0,
            -0.524400532245636,
            0.29999999320692206,
            -1.0564364923144254,
            0.9999999999999898,
            -0.5244005322455546,
            1.0171598948591544e-14,
            8.86970820579835e-19,
        ),
        (
            0.0,
            1.0,
            -8.0,
            9.0,
            1.2815515995025635,
            0.9000000059595656,
            -1.7401257842984617,
            0.9999999999999971,
            1.2815515995025866,
            2.8788142580501764e-15,
            5.271729125010689e-18,
        ),
        (
            0.0,
            1.0,
            40.0,
            41.0,
            40.00002670288086,
            0.0010682113864149705,
            3.6884353649582184,
            6.667397079056541e-07,
            5.3372469175601165e-05,
            0.9999993332602921,
            2.7554628656177332e-21,
        ),
        (
            0.0,
            1.0,
            40.0,
            41.0,
            40.0089111328125,
            0.30002278371924285,
            3.3330184639051144,
            0.00022245124883248592,
            0.017809182765799434,
            0.9997775487511675,
            1.104198606710452e-18,
        ),
        (
            0.0,
            1.0,
            40.0,
            41.0,
            40.05748748779297,
            0.9000001192729757,
            1.388351563203992,
            0.001433340164738392,
            0.1148210943825044,
            0.9985666598352616,
            2.315760434699438e-17,
        ),
        (
            -1.5,
            2.0,
            -91.5,
            -81.5,
            -81.84442901611328,
            0.001000055249291033,
            -3.9070529406690504,
            0.004281598269354939,
            -0.3434784388308382,
            5.129801961719186e-90,
            0.9957184017306451,
        ),
        (
            -1.5,
            2.0,
            -91.5,
            -81.5,
            -81.56013488769531,
            0.300021767811743,
            1.7932065204931542,
            0.000750186559001392,
            -0.06007490620771193,
            1.2023431689396694e-92,
            0.9992498134409986,
        ),
        (
            -1.5,
            2.0,
            -91.5,
            -81.5,
            -81.50526428222656,
            0.9000051189182339,
            2.8910671913745,
            6.57172129338893e-05,
            -0.005260829630636822,
            5.729633497094713e-94,
            0.9999342827870661,
        ),
        (
            0.0,
            1.0,
            -0.0001220703125,
            0.000244140625,
            -0.00012170409900136292,
            0.0010000069936339834,
            7.9123010586558165,
            6.698863791593129e-11,
            1.6354713578420727e-17,
            0.9989999929617739,
            0.0010000069712374484,
        ),
        (
            0.0,
            1.0,
            -0.0001220703125,
            0.000244140625,
            -1.220703143189894e-05,
            0.30000000091145435,
            7.912301065987254,
            1.4081597194734453e-08,
            1.0313669727647006e-12,
            0.6999999939252933,
            0.2999999919931095,
        ),
        (
            0.0,
            1.0,
            -0.0001220703125,
            0.000244140625,
            0.0002075195370707661,
            0.9000000177050628,
            7.912301044529581,
            6.034969430632184e-09,
            1.3260431103797419e-12,
            0.09999998370309683,
            0.9000000102619338,
        ),
        (
            0.0,
            1.0,
            4.75,
            5.25,
            4.750187397003174,
            0.0010011281125646674,
            1.6752082650273408,
            2.9219255913909326e-05,
            0.0002850630772783509,
            0.999888529961113,
            8.225078297309304e-05,
        ),
        (
            0.0,
            1.0,
            4.75,
            5.25,
            4.815332889556885,
            0.29999962549158266,
            1.3636329997271062,
            0.009588154545109766,
            0.09404769305508157,
            0.956753984272741,
            0.03365786118214918,
        ),
        (
            0.0,
            1.0,
            4.75,
            5.25,
            5.099636554718018,
            0.899999816015473,
            -0.045798076756891244,
            0.027137519774549104,
            0.2718655254660668,
            0.5595139838633328,
            0.413348496362118,
        ),
        (0.0, 1.0, 1000.0, 1000.125, 1000.0, 0.0, 6.907756278979637, 0.0, 0.0, 1.0, 0.0),
        (
            0.0,
            1.0,
            1000.0,
            1000.125,
            1000.0003662109375,
            0.3066437695171885,
            6.541545274424411,
            3.66210070972056e-07,
            0.000732421008472056,
            0.9999996337899291,
            2.267119434803778e-55,
        ),
        (
            0.0,
            1.0,
            1000.0,
            1000.125,
            1000.0023193359375,
            0.9016616254965986,
            4.588417651820041,
            2.3193259195715e-06,
            0.0046386618570715,
            0.9999976806740805,
            4.700200566393669e-54,
        ),
    ]
)
# loc, scale, low, high, u, and the second derivatives of the quantile of u.
SECOND = [
    (
        (0.25, 1.25, -1.0, 2.0, 0.2999999992727137),
        [
            [0.1504593720492679, -0.5021632242800419, -0.2970026438120904, 0.14654327176282247],
            [-0.5021632242800419, 0.07858964448900095, 0.3256742327004415, 0.17648899157960038],
            [-0.2970026438120904, 0.3256742327004415, 0.30894913918223665, -0.011946495370146288],
            [0.14654327176282247, 0.17648899157960038, -0.011946495370146288, -0.1345967763926762],
        ],
    ),
    (
        (0.0, 1.0, 40.0, 41.0, 0.30002278371924285),
        [
            [1.1098097243011562e-05, 0.0004439238897204614, -1.1098097243012666e-05, 1.104186349480303e-18],
            [0.0004439238897204614, 0.017756955588818367, -0.0004439238897205508, 8.943959685434066e-17],
            [-1.1098097243012666e-05, -0.0004439238897205508, 1.1098097242968499e-05, 4.4167956525648236e-17],
            [1.104186349480303e-18, 8.943959685434066e-17, 4.4167956525648236e-17, -4.527214287512854e-17],
        ],
    ),
]


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_derivatives_densities_and_quantiles_are_exact(dtype: Any, bound: float) -> None:
    *params, x, cdf, log_prob = (jnp.asarray(column, dtype) for column in EXACT.T[:7])

    @jax.jit
    def found(x: Any, cdf: Any, *params: Any) -> Any:
        dist = laws.TruncatedNormal(*params)
        return _velocity(x, cdf, *params)[1:], dist.log_prob(x), dist.cdf(x), dist.icdf(cdf)

    velocities, densities, probabilities, quantiles = found(x, cdf, *params)
    for i, (velocity, exact) in enumerate(zip(velocities, EXACT.T[7:], strict=True)):
        assert velocity.dtype == dtype
        # that in the scale changes sign; its terms are twice the standardized draw times that in the location
        terms = np.abs(2 * (x - params[0]) / params[1] * EXACT[:, 7]) if i == 1 else np.abs(exact)
        assert (np.abs(velocity - exact) <= bound * terms + np.finfo(dtype).tiny).all()
    np.testing.assert_allclose(densities, log_prob, rtol=bound, atol=bound)
    np.testing.assert_allclose(probabilities, cdf, rtol=bound)
    # to the rounding of x, and to that of u through the derivative 1 / p
    rounding = np.finfo(dtype).eps * (np.abs(x) + np.exp(-log_prob))
    assert (np.abs(quantiles - x) <= 8 * rounding).all()


def test_second_derivatives_in_every_nesting() -> None:
    points, exact = (jnp.asarray(column) for column in zip(*SECOND, strict=True))

    @jax.jit
    @jax.vmap
    def seconds(point: Any) -> Any:
        quantile = lambda p: laws.TruncatedNormal(*p).icdf(point[4])  # noqa: E731
        modes = (jax.jacfwd, jax.jacrev)
        return [outer(inner(quantile))(point[:4]) for outer in modes for inner in modes]

    for second in seconds(points):
        np.testing.assert_allclose(second, exact, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_nothing_is_nan_and_draws_lie_inside(dtype: Any) -> None:
    inf = np.inf
    low = jnp.asarray([-inf, -inf, 40.0, 1e4, -1e8, 0.0, 1e-30, -30.0, -1e30, 3.0], dtype)
    high = jnp.asarray([inf, -40.0, inf, 1.1e4, -0.9e8, 1e-20, 2e-30, 40.0, 1e30, inf], dtype)
    scale = jnp.asarray([1e-20, 1.0, 1.0, 1.0, 1.0, 1.0, 1e-30, 1.0, 1e-5, 1e6], dtype)

    def cost(params: Any, key: Any) -> Any:
        dist = laws.TruncatedNormal(*params)
        x = dist.sample(key)
        return jnp.sum(x), (x, dist.log_prob(x), dist.cdf(x))

    params = (jnp.zeros_like(low), scale, low, high)
    keys = jax.random.split(jax.random.key(0), 300)
    gradients, (x, *others) = jax.jit(jax.vmap(jax.grad(cost, has_aux=True), (None, 0)))(params, keys)
    for leaf in (x, *others, *gradients):
        assert np.isfinite(leaf).all() and leaf.dtype == dtype
    assert (x >= low[None]).all() and (x <= high[None]).all()


def test_draws_follow_the_law_in_float32() -> None:
    cases = [(0.0, 1.0, -0.7, 2.0), (1.0, 2.0, -np.inf, -10.0), (0.0, 1.0, 6.0, 6.1), (0.0, 1.0, 1e-6, 2e-6)]
    params = [jnp.asarray(column, jnp.float32) for column in zip(*cases, strict=True)]
    draw = jax.jit(jax.vmap(lambda key: laws.TruncatedNormal(*params).sample(key)))
    draws = np.asarray(draw(jax.random.split(jax.random.key(1), 4_000)))
    for column, (loc, scale, low, high) in zip(draws.T, cases, strict=True):
        exact = scipy.stats.truncnorm((low - loc) / scale, (high - loc) / scale, loc, scale)
        assert scipy.stats.kstest(column.astype(float), exact.cdf).pvalue > 1e-3


def test_starting_points_in_short_intervals_keep_their_digits(monkeypatch: Any) -> None:
    """Or two copies of one in a compiled program differ, and the derivative of a draw is that of another draw."""
    monkeypatch.setattr(truncated_normal, "_NEWTON_STEPS", 0)
    u, width = jnp.linspace(0.01, 0.99, 101, dtype=jnp.float32), jnp.float32(1e-3)
    x = jax.jit(_solve.__wrapped__)(u, *(jnp.full_like(u, value) for value in (0, 1, -width, width)))
    np.testing.assert_allclose(x, (2 * np.asarray(u, np.float64) - 1) * float(width), atol=1e-6 * float(width))
