"""What users pass by mistake is refused in words of mcgrad, before anything is computed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad

KEY = jax.random.key(0)


def normal(theta, key):
    return mcgrad.sample(key, mcgrad.Normal(theta, 1.0))


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
    with pytest.raises(TypeError, match=r"must be a key, got Normal.*Swap the two: `mcgrad.sample\(key, dist\)`"):
        mcgrad.sample(mcgrad.Normal(0.0, 1.0), KEY)
    with pytest.raises(TypeError, match="must be a key, got int: 0. Make keys"):
        mcgrad.sample(0, mcgrad.Normal(0.0, 1.0))
    for transform in (mcgrad.expectation, mcgrad.grad, mcgrad.explain):
        with pytest.raises(TypeError, match=r"`normal\(key=...\)` must be a key, got none. Pass `jax.random.key"):
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
