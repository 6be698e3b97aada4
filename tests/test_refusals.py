"""What cannot be done is refused: each `raise` of the engine, with the user's line and the way out."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ESTIMATORS, PROGRAMS

import mcgrad
from mcgrad.transforms import plan_of

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
        (same_key_in_every_step, mcgrad.Score(), ValueError, "every step"),
        (custom, mcgrad.Score(), NotImplementedError, "custom_jvp_call"),
        (long_scan, mcgrad.Enumerate(), NotImplementedError, "limit is 32"),
        (endless, mcgrad.Enumerate(), NotImplementedError, "while_loop"),
        (bernoulli, mcgrad.Score(baseline="leave_one_out"), ValueError, "several samples"),
    ],
)
def test_what_would_be_wrong_is_refused_with_its_line(program, estimator, error, reason):
    # Two of the programs reuse a key on purpose: JAX's own checker, off for its users by default, would come first.
    with jax.debug_key_reuse(False), pytest.raises(error, match=reason) as raised:
        mcgrad.grad(program, estimator=estimator)(0.5, jax.random.key(0))
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
def test_keys_must_be_typed_and_single(transform):
    with pytest.raises(TypeError, match="old-style uint32 key.*wrap_key_data"):
        transform(normal)(0.5, jax.random.PRNGKey(0))
    with pytest.raises(TypeError, match=r"array of keys of shape \(2,\)"):
        transform(normal)(0.5, jax.random.split(jax.random.key(0), 2))
    with pytest.raises(TypeError, match="must be a typed key, got int"):
        transform(normal)(0.5, 7)
    with pytest.raises(TypeError, match=r"`mcgrad.sample\(key=...\)` must be a typed key, got Normal: Normal\(loc="):
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

    # an estimator that is right anywhere, to find the site by
    plan, _ = plan_of(lambda p, key: program(p, key), (0.3, KEY), {}, _Anything(), False)
    (site,) = plan.analysis.sites.values()
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


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: mcgrad.Categorical(jnp.zeros(3)),
            r"Categorical\(...\)` must get `logits=` or `probs=` by name, got an array of",
        ),
        (
            lambda: mcgrad.OneHotCategorical([0.0, 1.0]),
            r"`mcgrad.OneHotCategorical\(...\)` must get .* by name, got list",
        ),
        (lambda: mcgrad.Bernoulli(jnp.zeros(2)), r"Pass for instance `mcgrad.Bernoulli\(logits=...\)`"),
        (lambda: mcgrad.Bernoulli(0.0), r"must get `logits=` or `probs=` by name, got float: 0.0"),
        (lambda: mcgrad.Geometric(0.5), r"`mcgrad.Geometric\(...\)` must get .* by name"),
        (lambda: mcgrad.Binomial(3, 0.5), r"Pass for instance `mcgrad.Binomial\(total_count, logits=...\)`"),
        (lambda: mcgrad.Multinomial(3, jnp.zeros(3)), r"`mcgrad.Multinomial\(total_count, logits=...\)`"),
        (lambda: mcgrad.NegativeBinomial(3.0, 0.5), r"`mcgrad.NegativeBinomial\(...\)` must get .* by name"),
        (
            lambda: mcgrad.Normal(None, 1.0),
            r"`mcgrad.Normal\(loc=...\)` must be a real number or array, got NoneType: None",
        ),
        (
            lambda: mcgrad.Normal(0.0, None),
            r"`mcgrad.Normal\(scale=...\)` must be a real number or array, got NoneType: None",
        ),
        (lambda: mcgrad.Gamma(None, 1.0), "must be a real number or array, got NoneType"),
        (lambda: mcgrad.Poisson(None), "must be a real number or array, got NoneType"),
        (
            lambda: mcgrad.Normal(["a"], 1.0),
            r"`mcgrad.Normal\(loc=...\)` must be a real number or array, got list: \['a'\]",
        ),
        (lambda: mcgrad.Normal([[0.0], [1.0, 2.0]], 1.0), "must be a real number or array, got list"),
        (lambda: mcgrad.Binomial([1.5], probs=0.5), r"total_count=...\)` must be an integer"),
    ],
)
def test_parameters_that_are_none_are_refused(make, reason):
    with pytest.raises(TypeError, match=reason):
        make()


def test_lists_and_tuples_are_parameters():
    np.testing.assert_array_equal(mcgrad.Normal([0.0, 1.0], (1.0, 2.0)).loc, [0.0, 1.0])
    assert mcgrad.Normal([0, 1], 1).sample(jax.random.key(0)).shape == (2,)
    assert mcgrad.Binomial([1, 2], probs=[0.5, 0.2]).batch_shape == (2,)
    assert mcgrad.Multinomial([1, 2], logits=[0.0, 1.0, 2.0]).batch_shape == (2,)
    assert mcgrad.Dirichlet([1.0, 2.0]).event_shape == (2,)
    assert mcgrad.MultivariateNormal([0.0, 0.0], scale_tril=[[1.0, 0.0], [0.5, 1.0]]).event_shape == (2,)
    slope = jax.grad(lambda t: mcgrad.Categorical(logits=[t, 0.0]).log_prob(0))(0.0)
    assert slope == 0.5


@pytest.mark.parametrize("transform", [mcgrad.expectation, mcgrad.grad, mcgrad.value_and_grad, mcgrad.explain])
@pytest.mark.parametrize("value", ["yes", None, 1])
def test_has_aux_is_a_bool(transform, value):
    with pytest.raises(TypeError, match=r"has_aux=...\)` must be True or False, got"):
        transform(normal, has_aux=value)


def test_estimators_in_the_wrong_place_are_named():
    for transform in (mcgrad.grad, mcgrad.value_and_grad):
        with pytest.raises(TypeError, match=r"argnums=...\)` must be an int or several, got Score. .*`estimator=`"):
            transform(normal, mcgrad.Score())
    for baseline in (4, True, 0):
        with pytest.raises(TypeError, match=f"baseline=...\\)` must be .* got {baseline}. .*`num_samples=`"):
            mcgrad.Score(baseline)
    for path in ("optimal_transport", "sampler"):
        with pytest.raises(TypeError, match=f"path=...\\)` must be passed by its name, got '{path}'.*`path=`"):
            mcgrad.Pathwise(path)
    for one in (True, np.True_, 2.0, np.float64(2.0)):
        with pytest.raises(ValueError, match=r"num_samples=...\)` must be a positive int"):
            mcgrad.Score(num_samples=one)


def test_numbers_of_samples_may_be_those_of_numpy():
    four = np.int64(4)
    for estimator in (mcgrad.Score(num_samples=four), mcgrad.ARMS(four), mcgrad.SumAndSample(four)):
        assert type(estimator.num_samples) is int
    t = jnp.float32(0.3)
    same = mcgrad.grad(normal, num_samples=4, chunk_size=2)(t, jax.random.key(0))
    found = mcgrad.grad(normal, num_samples=four, chunk_size=np.int32(2))(t, jax.random.key(0))
    assert found == same and found.dtype == jnp.float32


def test_keys_in_the_wrong_place_are_named():
    with pytest.raises(TypeError, match=r"must be a typed key, got Normal.*Swap the two: `mcgrad.sample\(key, dist\)`"):
        mcgrad.sample(mcgrad.Normal(0.0, 1.0), KEY)
    with pytest.raises(TypeError, match="must be a typed key, got int: 0. Make keys"):
        mcgrad.sample(0, mcgrad.Normal(0.0, 1.0))
    for transform in (mcgrad.expectation, mcgrad.grad, mcgrad.explain):
        with pytest.raises(TypeError, match=r"`normal\(key=...\)` must be a typed key, got none. Pass `jax.random.key"):
            transform(normal)(0.5)
    with pytest.raises(TypeError, match="got none"):
        mcgrad.expectation(normal, num_samples=2)(theta=0.5)
    with pytest.raises(TypeError, match="got none"):
        mcgrad.grad(lambda t, *, key: normal(t, key))(0.5)


@dataclasses.dataclass
class Loss:
    value: float


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (lambda x: None, "got NoneType: None from `program`"),
        (lambda x: (), r"got tuple: \(\) from"),
        (lambda x: "loss", "got str: 'loss' from `program`. Return a number"),
        (lambda x: (x, "loss"), "got str: 'loss'"),
        (lambda x: Loss(x), "got Loss: .*register_dataclass"),
    ],
)
def test_programs_that_return_no_cost_are_refused(returned, reason):
    def program(t, key):
        return returned(normal(t, key))

    with pytest.raises(TypeError, match="must return floating-point costs"):
        mcgrad.expectation(lambda t, key: (program(t, key), 1.0), has_aux=True)(0.5, jax.random.key(0))
    for transform in (mcgrad.expectation, mcgrad.grad, mcgrad.explain):
        with pytest.raises(TypeError, match=f"must return floating-point costs, {reason}"):
            transform(program)(0.5, jax.random.key(0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Costs:
    value: jax.Array


def test_registered_dataclasses_are_pytrees_of_costs():
    program = lambda t, key: Costs(normal(t, key))  # noqa: E731
    assert mcgrad.expectation(program)(0.5, jax.random.key(0)).value.shape == ()
    with pytest.raises(TypeError, match="scalar, got a pytree"):
        mcgrad.grad(program)(0.5, jax.random.key(0))


class Silent(mcgrad.Normal):
    def log_prob(self, x):
        super().log_prob(x)


def test_log_probs_that_return_nothing_are_refused():
    made = mcgrad.distribution(sampler=lambda key, p: p + jax.random.normal(key), log_prob=lambda x, p: None)
    for law, reason in (
        (made, r"`mcgrad.distribution\(log_prob=...\)` must return the log density, an array, got NoneType"),
        (lambda t: Silent(t, 1.0), "The `log_prob` of Silent must return the log density, an array, got NoneType"),
    ):
        with pytest.raises(TypeError, match=reason):
            mcgrad.grad(lambda t, key, law=law: mcgrad.sample(key, law(t), mcgrad.Score()))(0.5, jax.random.key(0))
