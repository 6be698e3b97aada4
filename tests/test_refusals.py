"""What cannot be done is refused: each `raise` of the engine, with the user's line and the way out."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ESTIMATORS, PROGRAMS, assert_unbiased
from jax.experimental import io_callback

import mcgrad
from mcgrad.planned import plan_of

KEY = jax.random.key(0)
HERE = "test_refusals.py"


def bernoulli(theta, key):
    return 1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=theta))


def normal(theta, key):
    return mcgrad.sample(key, mcgrad.Normal(theta, 1.0))


def shared_noise(theta, key):
    return jnp.sum(jax.vmap(lambda t: normal(t, key))(theta * jnp.ones(3)))


def same_key_twice(theta, key):
    return normal(theta, key) * normal(theta, key)


def clones(theta, key):
    return normal(theta, key) * normal(theta, jax.random.clone(key))


def same_key_in_every_step(theta, key):
    return jax.lax.scan(lambda c, _: (c + bernoulli(theta, key), None), 0.0, length=3)[0]


@jax.custom_jvp
def custom(theta, key):
    return normal(theta, key)


custom.defjvp(lambda primals, tangents: (custom(*primals), tangents[0]))


def no_density(theta, key):
    law = mcgrad.distribution(sampler=lambda key, p: p + jax.random.normal(key))
    return mcgrad.sample(key, law(theta))


def uniform(theta, key):
    return mcgrad.sample(key, mcgrad.Uniform(0.0, theta))


def poisson(theta, key):
    return 1.0 * mcgrad.sample(key, mcgrad.Poisson(theta))


def forty_bits(theta, key):
    return jnp.sum(bernoulli(theta * jnp.ones(40), key)) ** 2


def long_scan(theta, key):
    return jax.lax.scan(lambda c, k: (c + bernoulli(theta, k), None), 0.0, jax.random.split(key, 40))[0]


def twenty_steps(theta, key):
    return jax.lax.scan(lambda c, k: (c + bernoulli(theta, k), None), 0.0, jax.random.split(key, 20))[0] ** 2


def endless(theta, key):
    def step(state):
        n, key = state
        now, later = jax.random.split(key)
        return n + 1.0 + 0.0 * bernoulli(theta, now), later

    return jax.lax.while_loop(lambda s: s[0] < 3, step, (0.0, key))[0]


@pytest.mark.parametrize(
    ("program", "estimator", "error", "reason"),
    [
        (bernoulli, mcgrad.Pathwise(), ValueError, "discrete"),
        (no_density, mcgrad.Score(), ValueError, "no log density"),
        (uniform, mcgrad.Score(), ValueError, "support moves"),
        (poisson, mcgrad.Enumerate(), ValueError, "no finite support"),
        (forty_bits, mcgrad.Enumerate(), ValueError, "at most 16384 evaluations .* got 1.1e\\+12"),
        (twenty_steps, mcgrad.Enumerate(), ValueError, "got 1.05e\\+06"),
        (twenty_steps, mcgrad.Score(num_samples=2), ValueError, "got 1.05e\\+06"),
        (shared_noise, mcgrad.Score(), ValueError, "Split the key"),
        (same_key_twice, mcgrad.Score(), ValueError, "same key"),
        (clones, mcgrad.Score(), ValueError, "clone"),
        (same_key_in_every_step, mcgrad.Score(), ValueError, "several steps of the `scan`"),
        (custom, mcgrad.Score(), NotImplementedError, "custom_jvp_call"),
        (long_scan, mcgrad.Enumerate(), NotImplementedError, "limit is 32"),
        (endless, mcgrad.Enumerate(), NotImplementedError, "while_loop"),
        (bernoulli, mcgrad.Score(baseline="leave_one_out"), ValueError, "several samples"),
    ],
)
@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
def test_what_would_be_wrong_is_refused_with_its_line(program, estimator, error, reason, make_key):
    # Two of the programs reuse a key on purpose: JAX's own checker, off for its users by default, would come first.
    with jax.debug_key_reuse(False), pytest.raises(error, match=reason) as raised:
        mcgrad.grad(program, estimator=estimator)(0.5, make_key(0))
    assert HERE in str(raised.value)


def test_plain_grad_is_pathwise_where_that_is_right_and_refused_elsewhere():
    assert jax.grad(lambda t: 3.0 * normal(t, KEY))(0.5) == 3.0
    with pytest.raises(TypeError, match=f"{HERE}.*discrete.*mcgrad.expectation"):
        jax.grad(lambda t: bernoulli(t, KEY))(0.5)
    scored = lambda t: mcgrad.sample(KEY, mcgrad.Normal(t, 1.0), mcgrad.Score())  # noqa: E731
    with pytest.raises(TypeError, match="names the estimator Score"):
        jax.grad(scored)(0.5)


def test_a_baseline_alone_does_not_move_a_plain_run():
    def of_baseline(b):
        return 1.0 * mcgrad.sample(KEY, mcgrad.Bernoulli(logits=0.3), mcgrad.Score(baseline=b)) + 2 * b

    assert jax.grad(of_baseline)(0.5) == 2.0


@pytest.mark.parametrize("transform", [mcgrad.expectation, mcgrad.grad, mcgrad.explain])
def test_keys_must_be_keys_and_single(transform):
    with pytest.raises(TypeError, match="must be a key, got an array of uint32 .*wrap_key_data"):
        transform(normal)(0.5, jax.random.split(jax.random.PRNGKey(0), 2))
    with pytest.raises(TypeError, match=r"array of keys of shape \(2,\)"):
        transform(normal)(0.5, jax.random.split(jax.random.key(0), 2))
    with pytest.raises(TypeError, match="must be a key, got int"):
        transform(normal)(0.5, 7)
    with pytest.raises(TypeError, match=r"`mcgrad.sample\(key=...\)` must be a key, got Normal: Normal\(loc="):
        transform(lambda t, key: mcgrad.sample(mcgrad.Normal(t, 1.0), key))(0.5, KEY)


def test_programs_must_return_floating_costs():
    with pytest.raises(TypeError, match="floating-point costs, got int32.*has_aux"):
        mcgrad.expectation(lambda t, key: mcgrad.sample(key, mcgrad.Bernoulli(logits=t)))(0.5, KEY)
    with pytest.raises(TypeError, match=r"scalar, got an array of shape \(3,\).*jacrev"):
        mcgrad.grad(lambda t, key: normal(t * jnp.ones(3), key))(0.5, KEY)
    with pytest.raises(TypeError, match="pair"):
        mcgrad.grad(normal, has_aux=True)(0.5, KEY)


def test_options_are_checked_where_they_are_given():
    with pytest.raises(ValueError, match="num_samples.*positive int, got 0"):
        mcgrad.grad(normal, num_samples=0)
    with pytest.raises(TypeError, match="must be an estimator"):
        mcgrad.expectation(normal, estimator="score")
    with pytest.raises(TypeError, match="must be an estimator"):
        mcgrad.sample(KEY, mcgrad.Normal(0.0, 1.0), "score")
    with pytest.raises(ValueError, match="baseline"):
        mcgrad.Score(baseline="mean")
    with pytest.raises(ValueError, match="num_samples"):
        mcgrad.Score(num_samples=0)
    with pytest.raises(ValueError, match="argument named `key`"):
        mcgrad.expectation(lambda t: t, num_samples=2)(0.5)


def test_plain_functions_must_be_complete():
    draw = lambda key, p: p + jax.random.normal(key)  # noqa: E731
    with pytest.raises(ValueError, match="no `log_prob`"):
        mcgrad.score_grad(lambda p, x: x, sampler=draw)
    with pytest.raises(ValueError, match="no `sampler`"):
        mcgrad.score_grad(lambda p, x: x, log_prob=lambda x, p: -((x - p) ** 2))
    with pytest.raises(ValueError, match="A cdf alone does not draw"):
        mcgrad.pathwise_grad(lambda p, x: x, cdf=lambda x, p: x)
    with pytest.raises(ValueError, match="argnums"):
        mcgrad.pathwise_grad(lambda p, x: x, 1, sampler=draw)
    jumps = lambda key, p: jnp.floor(p + jax.random.normal(key))  # noqa: E731
    with pytest.raises(ValueError, match="zero"):
        mcgrad.pathwise_grad(lambda p, x: x, sampler=jumps)(0.5, KEY)


def test_signed_points_refuse_a_second_derivative():
    gradient = mcgrad.grad(bernoulli, estimator=Weak())
    np.testing.assert_allclose(gradient(0.3, jax.random.key(0)), jax.grad(jax.nn.sigmoid)(0.3), rtol=1e-6)
    with pytest.raises(NotImplementedError, match="first order only"):
        jax.grad(gradient)(0.3, KEY)


class Weak(mcgrad.Estimator):
    """A third party's estimator: the measure-valued derivative of a Bernoulli in its logit, `p (1 - p) (f(1) - f(0))`."""

    def represent(self, draw):
        x = draw.sample()
        logits = draw.dist.logits
        p = jax.lax.stop_gradient(jax.nn.sigmoid(logits))
        coefficient = p * (1 - p) * (logits - jax.lax.stop_gradient(logits))
        points = jnp.stack([jnp.ones_like(x), jnp.zeros_like(x)])
        return mcgrad.SignedPoints(x, points, jnp.stack([coefficient, -coefficient]))


def test_signed_points_perturb_unmixed_axes_together_and_mixed_ones_one_by_one():
    w = jnp.array([0.5, -1.0, 2.0])

    def program(theta, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=theta), name="b")
        return jnp.mean((b @ w - 0.3) ** 2) + jnp.mean(b)

    theta = jnp.array([[0.1, -0.4, 0.6], [1.0, 0.2, -0.3]])
    exact = mcgrad.grad(program, estimator=mcgrad.Enumerate())(theta, jax.random.key(1))
    draws = jax.vmap(lambda k: mcgrad.grad(program, estimator=Weak())(theta, k))(
        jax.random.split(jax.random.key(3), 4000)
    )
    error = jnp.abs(draws.mean(0) - exact) / (draws.std(0) / 4000**0.5)
    assert jnp.max(error) < 5
    assert 5 * jnp.max(draws.std(0)) / 4000**0.5 < 0.1 * jnp.linalg.norm(exact)


LAWS = {
    "normal": lambda p: mcgrad.Normal(p, 1.0),
    "binary": lambda p: mcgrad.Bernoulli(logits=p),
    "counts": lambda p: mcgrad.Poisson(jnp.exp(p)),
    "classes": lambda p: mcgrad.OneHotCategorical(logits=jnp.stack([p, 0.0 * p, -p])),
    "a support that moves": lambda p: mcgrad.Uniform(p, p + 1.0),
    "vectors": lambda p: mcgrad.Dirichlet(jnp.exp(jnp.stack([p, p]))),
    "a sampler only": lambda p: mcgrad.distribution(sampler=lambda key, p: jnp.floor(p + jax.random.normal(key)))(p),
}


@pytest.mark.parametrize("law", LAWS)
def test_every_estimator_says_what_would_work_in_its_place(law):
    """What a refusal names is not refused itself; nothing is compiled."""

    def program(p, key):
        return jnp.sum(1.0 * mcgrad.sample(key, LAWS[law](p)))

    found = []

    def find(p):  # by an estimator that is right anywhere
        found.append(plan_of(lambda p, key: program(p, key), (p, KEY), {}, _Anything(), False)[0])
        return p

    jax.eval_shape(find, 0.3)
    (site,) = found[0].analysis.sites.values()
    made = {
        name: row.make(PROGRAMS["normal"], PROGRAMS["normal"].typed_params(jnp.float64))
        for name, row in ESTIMATORS.items()
    }
    classes = {type(estimator).__name__: estimator for estimator in made.values()}
    classes.pop("Auto")  # chooses among the others
    refused = {name for name, estimator in classes.items() if estimator.why_not(site) is not None}
    works = classes.keys() - refused
    assert refused
    for name in refused:
        told = f"`mcgrad.{name}` would be wrong at the draw from {LAWS[law](jnp.asarray(0.3)).law} at"
        with pytest.raises(ValueError, match=re.escape(told)) as raised:
            mcgrad.grad(program, estimator=classes[name])(0.3, KEY)
        reason = str(raised.value)
        named = set(re.findall(r"`mcgrad\.([A-Z]\w+)\(\)`", reason))
        assert named <= works, (name, reason)
        assert works & {"Pathwise", "Score", "SmoothedPerturbation", "MeasureValued"} <= named, (name, reason)
        assert named or "mcgrad.distribution" in reason, (name, reason)


class _Anything(mcgrad.LocalEstimator):
    """Never run: an estimator with no reason against it."""


def test_a_score_is_right_where_the_support_is_constant():
    def program(p, key):
        return mcgrad.sample(key, mcgrad.TruncatedNormal(p, 1.0, -1.0, 2.0)) ** 2

    def exact(p):
        x = jnp.linspace(-1.0, 2.0, 20_001)
        return jnp.trapezoid(x**2 * jnp.exp(mcgrad.TruncatedNormal(p, 1.0, -1.0, 2.0).log_prob(x)), x)

    gradient = mcgrad.grad(program, estimator=mcgrad.Score(baseline=None))
    draws = jax.jit(jax.vmap(gradient, (None, 0)))(0.3, jax.random.split(KEY, 20_000))
    assert_unbiased(draws, jax.grad(exact)(0.3))
    with pytest.raises(ValueError, match="the support moves with `high`, so"):
        mcgrad.grad(lambda p, key: mcgrad.sample(key, mcgrad.Uniform(0.0, p)), estimator=mcgrad.Score())(0.3, KEY)


def test_keys_that_are_computed_in_the_same_way_are_the_same_key():
    def program(p, key):
        x = mcgrad.sample(jax.random.split(key)[0], mcgrad.Normal(p, 1.0))
        return x * mcgrad.sample(jax.random.split(key)[0], mcgrad.Normal(p, 1.0))

    with jax.debug_key_reuse(False), pytest.raises(ValueError, match="uses the same key as"):
        mcgrad.grad(program)(0.3, KEY)


def test_a_key_that_a_while_loop_does_not_change_is_refused():
    def program(p, key):
        def step(carry):
            return carry[0] + mcgrad.sample(key, mcgrad.Poisson(jnp.exp(p))), carry[1] + 1

        return 1.0 * jax.lax.while_loop(lambda carry: carry[1] < 3, step, (0, 0))[0]

    with jax.debug_key_reuse(False), pytest.raises(ValueError, match="same key in several steps of the `while_loop`"):
        jax.jit(mcgrad.expectation(program))(0.3, KEY)


def test_callbacks_in_order_run_once_or_are_refused():
    def program(p, key):
        b = 1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=p))
        return io_callback(np.asarray, jax.ShapeDtypeStruct((), b.dtype), b, ordered=True)

    assert np.isfinite(mcgrad.grad(program, estimator=mcgrad.Score())(0.3, jax.random.key(0)))
    for options in ({"estimator": mcgrad.LocalExpectation()}, {"estimator": mcgrad.Score(), "num_samples": 3}):
        with pytest.raises(
            NotImplementedError, match=r"`io_callback` at .*test_refusals.py:\d+.* must be called in order"
        ):
            mcgrad.grad(program, **options)(0.3, jax.random.key(0))


def test_draws_are_not_written_into_mutable_arrays():
    def program(p, key, loop):
        total = jax.new_ref(jnp.zeros(()))

        def step(carry, key):
            total[...] += 1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=p))
            return carry, None

        if loop:
            jax.lax.scan(step, 0.0, jax.random.split(key, 3))
        else:
            step(0.0, key)
        return jnp.cos(total[...])

    for loop in (False, True):
        with pytest.raises(
            NotImplementedError, match=r"at .*test_refusals.py:\d+.* writes into a mutable array what depends on"
        ):
            mcgrad.grad(program, estimator=mcgrad.Score())(0.3, KEY, loop)


def test_what_depends_on_no_draw_may_be_written():
    def program(p, key):
        scale = jax.new_ref(jnp.zeros(()))
        scale[...] = 2.0 * p
        return scale[...] * mcgrad.sample(key, mcgrad.Bernoulli(logits=p)).astype(float)

    found = mcgrad.value_and_grad(program)(0.3, KEY)  # by enumeration
    np.testing.assert_allclose(found, jax.value_and_grad(lambda p: 2 * p * jax.nn.sigmoid(p))(0.3), rtol=1e-12)
