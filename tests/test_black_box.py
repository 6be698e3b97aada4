"""Black-box gradients have exactly the mean that their docstrings state, bias included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import RESOLUTION, assert_unbiased, gradient_draws
from jax.scipy.stats import norm

import mcgrad
from mcgrad.black_box.evolution import _orthogonal

STEP = 0.4
PARAMS = {"a": jnp.array([0.5, -0.8]), "b": jnp.array(0.3)}
TRANSFORMS = {
    "finite differences": functools.partial(mcgrad.finite_difference_grad, step=STEP),
    "forward differences": functools.partial(mcgrad.finite_difference_grad, step=STEP, difference="forward"),
    "spsa": functools.partial(mcgrad.spsa_grad, step=STEP),
    "evolution": functools.partial(mcgrad.evolution_grad, scale=STEP),
    "evolution, orthogonal": functools.partial(mcgrad.evolution_grad, scale=STEP, orthogonal=True),
    "evolution, guided": functools.partial(
        mcgrad.evolution_grad,
        scale=STEP,
        guide={"a": jnp.array([[1.0, 0.5], [1.0, -1.0]]), "b": jnp.array([0.0, 2.0])},
        guide_share=0.7,
    ),
}
EVERY = pytest.mark.parametrize("name", TRANSFORMS)
RANDOM = pytest.mark.parametrize("name", [name for name in TRANSFORMS if "differences" not in name])


def cubic(params):
    (x, y), z = params["a"], params["b"]
    return x**3 + 2 * x * y**2 - y**3 + z**2 * x + x * y * z + 3 * z - 0.5 * y


def noisy_cubic(params, key):
    """Of expectation `cubic`: noise that multiplies the parameters, and a draw that jumps in them."""
    key_noise, key_draw = jax.random.split(key)
    jumps = mcgrad.sample(key_draw, mcgrad.Bernoulli(probs=jax.nn.sigmoid(0.5)))
    return (
        cubic(params) * (1 + 0.1 * jax.random.normal(key_noise)) + (jumps - jax.nn.sigmoid(0.5)) * params["b"]
    ).astype(params["b"].dtype)


def samples_for(name):
    return 5 if "orthogonal" in name else 1


def vector(tree):
    return jnp.concatenate([tree["a"], tree["b"][None]])


def tree(vector):
    return {"a": vector[:2], "b": vector[2]}


def smoothed_gradient(name):
    """The exact mean on `cubic`, from its derivatives, which end with the third."""
    f, x = lambda v: cubic(tree(v)), vector(PARAMS)
    first, second, third = jax.grad(f)(x), jax.hessian(f)(x), jax.jacfwd(jax.hessian(f))(x)
    own = jnp.einsum("iii->i", third)
    laplacian = jnp.einsum("ijj->i", third)
    match name:
        case "finite differences":
            return first + STEP**2 / 6 * own
        case "forward differences":
            return first + STEP / 2 * jnp.diagonal(second) + STEP**2 / 6 * own
        case "spsa":
            return first + STEP**2 * (own / 6 + (laplacian - own) / 2)
        case "evolution, guided":
            guide = TRANSFORMS[name].keywords["guide"]
            basis, _ = jnp.linalg.qr(jnp.concatenate([guide["a"], guide["b"][:, None]], axis=1).T)
            covariance = 0.3 / 3 * jnp.eye(3) + 0.7 / 2 * basis @ basis.T
            return covariance @ (first + STEP**2 / 2 * jnp.einsum("ijk,jk->i", third, covariance))
        case _:
            return first + STEP**2 / 2 * laplacian


@EVERY
def test_mean_is_the_stated_one_bias_included(name):
    gradient = TRANSFORMS[name](noisy_cubic, num_samples=samples_for(name))
    exact = {"gradient": np.asarray(smoothed_gradient(name))}
    draws = gradient_draws(lambda key: {"gradient": vector(gradient(PARAMS, key))}, exact, jax.random.key(1), batch=256)
    assert_unbiased(draws, exact)
    # The bias is larger than the check resolves; that of finite differences is checked without noise, below.
    bias = np.linalg.norm(exact["gradient"] - vector(jax.grad(cubic)(PARAMS)))
    assert "differences" in name or bias > RESOLUTION * np.linalg.norm(exact["gradient"])


@pytest.mark.parametrize("difference", ["central", "forward"])
def test_finite_differences_without_a_key_are_exact(difference):
    gradient = mcgrad.finite_difference_grad(cubic, step=STEP, difference=difference)
    np.testing.assert_allclose(
        vector(gradient(PARAMS)),
        smoothed_gradient("finite differences" if difference == "central" else "forward differences"),
    )
    np.testing.assert_array_equal(vector(gradient(PARAMS, key=jax.random.key(0))), vector(gradient(PARAMS)))


def test_finite_differences_use_common_random_numbers():
    def cost(scale, key):
        return scale * jax.random.normal(key)

    gradient = mcgrad.finite_difference_grad(cost, step=1e-3)(0.7, jax.random.key(0))
    np.testing.assert_allclose(gradient, jax.random.normal(jax.random.key(0)), rtol=1e-10)


def test_evolution_follows_a_function_that_jumps():
    def above(x):
        return jnp.where(jnp.sum(x) > 0, 1.0, 0.0)

    x = jnp.array([0.2, 0.1])
    exact = jax.grad(lambda x: norm.cdf(jnp.sum(x) / (STEP * np.sqrt(2))))(x)
    plain = mcgrad.evolution_grad(above, scale=STEP)
    orthogonal = mcgrad.evolution_grad(above, scale=STEP, orthogonal=True, num_samples=3, chunk_size=3)

    def estimate(key):
        keys = jax.random.split(key)
        return {"plain": plain(x, key=keys[0]), "orthogonal": orthogonal(x, key=keys[1])}

    exact = {"plain": np.asarray(exact), "orthogonal": np.asarray(exact)}
    draws = gradient_draws(estimate, exact, jax.random.key(2), batch=256)
    for name in exact:
        assert_unbiased(draws[name], exact[name])


def test_orthogonal_directions_are_orthogonal_and_gaussian_in_length():
    def slopes(key):
        gradient = mcgrad.evolution_grad(lambda x: x, argnums=0, scale=1.0, orthogonal=True, num_samples=2)
        return gradient(jnp.array(1.0), key=key)

    draws = jax.vmap(slopes)(jax.random.split(jax.random.key(0), 4096))
    # One entry: g = mean of two squares of standard normals.
    assert abs(float(draws.mean()) - 1) < 5 * np.sqrt(1 / 4096)
    assert abs(float(draws.var()) - 1) < 0.3

    rows = _orthogonal(jax.random.key(0), 5, jnp.zeros(3))[:, 0]
    for block in (rows[:3], rows[3:]):
        products = block @ block.T
        np.testing.assert_allclose(products, np.diag(np.diag(products)), atol=1e-12)


def test_spsa_has_the_variance_of_the_other_slopes():
    slope = jnp.array([1.0, -2.0, 0.5])
    gradient = mcgrad.spsa_grad(lambda x: slope @ x, step=0.1)
    draws = jax.vmap(lambda key: gradient(jnp.zeros(3), key=key))(jax.random.split(jax.random.key(0), 16384))
    np.testing.assert_allclose(draws.var(axis=0), jnp.sum(slope**2) - slope**2, rtol=0.1)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("finite differences", "evolution, orthogonal") else pytest.mark.slow)
        for name in TRANSFORMS
    ],
)
def test_transforms_and_dtypes(name):
    params = jax.tree.map(lambda x: x.astype(jnp.float32), PARAMS)
    numbers = [(1, None), (2, None), (6, 3)]
    gradients = [
        TRANSFORMS[name](noisy_cubic, num_samples=num, chunk_size=chunk)
        for num, chunk in numbers[1 if "orthogonal" in name else 0 :]
    ]

    @jax.jit
    def compiled(params, seed):
        plain = [gradient(params, jax.random.key(seed)) for gradient in gradients]
        mapped = [
            jax.vmap(gradient, (0, None))(jax.tree.map(lambda x: x[None], params), jax.random.key(seed))
            for gradient in gradients
        ]
        return plain, jax.tree.map(lambda x: x[0], mapped)

    plain, mapped = compiled(params, 0)
    eager = gradients[0](params, jax.random.key(0))
    for found, other in [*zip(plain, mapped, strict=True), (plain[0], eager)]:
        assert {k: leaf.dtype for k, leaf in found.items()} == {"a": jnp.float32, "b": jnp.float32}
        assert np.isfinite(vector(found)).all()
        np.testing.assert_allclose(vector(found), vector(other), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["forward differences", "evolution, guided"])
def test_auxiliary_output_is_that_of_the_parameters(name):
    def cost(scale, params, key):
        value = scale * noisy_cubic(params, key)
        return value, {"value": value, "key": jax.random.key_data(key)}

    def run(num_samples, chunk_size=None):
        gradient = TRANSFORMS[name](
            cost, argnums=(1, 0), num_samples=num_samples, chunk_size=chunk_size, has_aux=True, **guide_for(name)
        )
        return jax.jit(gradient)(2.0, PARAMS, jax.random.key(0))

    _, aux = run(4, 2)
    keys = jax.random.wrap_key_data(aux["key"])
    assert keys.shape == (4,) and len(np.unique(aux["key"], axis=0)) == 4
    expected = jax.vmap(lambda key: 2 * noisy_cubic(PARAMS, key))(keys)
    np.testing.assert_allclose(aux["value"], expected)
    (params, scale), aux = run(1)
    assert aux["value"].shape == () and scale.shape == () and params["a"].shape == (2,)


def guide_for(name):
    """A guide of the structure of two arguments."""
    if "guided" not in name:
        return {}
    return {"guide": (TRANSFORMS[name].keywords["guide"], jnp.ones(2))}


@pytest.mark.parametrize("name", ["finite differences", "evolution, guided"])
def test_a_black_box_may_be_a_callback(name):
    def host(x):
        return np.asarray(np.round(np.asarray(x) * 4).sum(), np.float64)

    def cost(x):
        return jax.pure_callback(host, jax.ShapeDtypeStruct((), jnp.float64), x, vmap_method="sequential")

    guide = {"guide": jnp.eye(3)[:1]} if "guided" in name else {}
    gradient = jax.jit(TRANSFORMS[name](cost, num_samples=2, **guide))(
        jnp.array([0.1, 0.2, 0.3]), key=jax.random.key(0)
    )
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


@EVERY
@pytest.mark.parametrize("differentiate", [jax.jacrev, jax.jacfwd])
def test_a_derivative_is_refused(name, differentiate):
    gradient = TRANSFORMS[name](noisy_cubic, num_samples=samples_for(name))
    with pytest.raises(NotImplementedError, match="derivative of a black-box gradient"):
        jax.eval_shape(differentiate(gradient), PARAMS, jax.random.key(0))


@pytest.mark.parametrize("name", ["finite differences", "spsa", "evolution"])
def test_a_step_lost_in_rounding_is_no_zero(name):
    transform, step = TRANSFORMS[name].func, next(iter(TRANSFORMS[name].keywords))
    x = jnp.array([1.0, 1e6], jnp.float32)
    gradient = transform(jnp.sum, **{step: 1e-3})(x, key=jax.random.key(0))
    assert np.isnan(gradient[1]) and np.isfinite(gradient[0])


@RANDOM
def test_a_key_is_needed(name):
    with pytest.raises(ValueError, match="must get a key to draw with"):
        TRANSFORMS[name](cubic, num_samples=2)(PARAMS)
    with pytest.raises(TypeError, match="must be a key"):
        TRANSFORMS[name](cubic, num_samples=2)(PARAMS, key=jnp.zeros(2))


def test_finite_differences_need_a_key_for_several_samples():
    with pytest.raises(ValueError, match="finite_difference_grad` must get a key"):
        mcgrad.finite_difference_grad(cubic, step=0.1, num_samples=2)(PARAMS)


@pytest.mark.parametrize(
    "make, error, match",
    [
        (lambda: mcgrad.spsa_grad(cubic, step=0.0), ValueError, r"spsa_grad\(step=...\)` must be positive"),
        (lambda: mcgrad.spsa_grad(cubic, step=jnp.ones(2)), ValueError, r"spsa_grad\(step=...\)` must be one number"),
        (lambda: mcgrad.finite_difference_grad(cubic, step=-1), ValueError, r"step=...\)` must be positive, got -1"),
        (lambda: mcgrad.evolution_grad(cubic, scale=0), ValueError, r"evolution_grad\(scale=...\)` must be positive"),
        (
            lambda: mcgrad.finite_difference_grad(cubic, step=1, difference="backward"),
            ValueError,
            'must be "central" or "forward", got \'backward\'',
        ),
        (
            lambda: mcgrad.spsa_grad(cubic, step=1, num_samples=0),
            ValueError,
            r"spsa_grad\(num_samples=...\)` must be a",
        ),
        (lambda: mcgrad.spsa_grad(cubic, step=1, chunk_size=0), ValueError, r"spsa_grad\(chunk_size=...\)` must be a"),
        (lambda: mcgrad.spsa_grad(cubic, step=1, num_samples=5, chunk_size=2), ValueError, "divide .* Take 6 samples"),
        (lambda: mcgrad.evolution_grad(cubic, scale=1, orthogonal=True), ValueError, "several samples at once, got 1"),
        (
            lambda: mcgrad.evolution_grad(cubic, scale=1, orthogonal=True, guide=PARAMS, num_samples=2),
            ValueError,
            "must have no `guide`",
        ),
        (lambda: mcgrad.evolution_grad(cubic, scale=1, guide_share=1.0), ValueError, "at least 0 and below 1, got 1.0"),
    ],
)
def test_options_that_cannot_be_are_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    "guide",
    [
        PARAMS,
        {"a": jnp.ones((2, 2)), "b": jnp.ones(3)},
        {"a": jnp.ones((4, 2)), "b": jnp.ones(4)},
        {"a": jnp.ones((0, 2)), "b": jnp.ones(0)},
        jnp.ones((1, 3)),
    ],
)
def test_a_guide_of_other_shapes_is_refused(guide):
    with pytest.raises(ValueError, match=r"evolution_grad\(guide=...\)` must have the structure"):
        mcgrad.evolution_grad(cubic, scale=1.0, guide=guide)(PARAMS, key=jax.random.key(0))


@EVERY
def test_functions_and_parameters_that_cannot_be_are_refused(name):
    options = {k: v for k, v in TRANSFORMS[name].keywords.items() if "guide" not in k}
    make = functools.partial(TRANSFORMS[name].func, num_samples=2, **options)

    def call(fn, params, **options):
        jax.eval_shape(make(fn, **options), params, key=jax.random.key(0))

    with pytest.raises(TypeError, match="must get a function that returns a floating-point scalar"):
        call(lambda params: params["a"], PARAMS)
    with pytest.raises(TypeError, match=r"floating-point scalar, got int64\[\]"):
        call(lambda params: jnp.sum(params["a"] > 0), PARAMS)
    with pytest.raises(TypeError, match=r"has_aux=True\)` must get a function that returns a pair"):
        call(cubic, PARAMS, has_aux=True)
    with pytest.raises(TypeError, match=r"has_aux=...\)` must be True or False, got 'yes'"):
        call(cubic, PARAMS, has_aux="yes")
    with pytest.raises(TypeError, match=r"must name arguments of real floating-point numbers, got int64"):
        call(cubic, jnp.arange(3))
