"""Dependence: windows are never narrower than the truth, and are the truth for the operations that models use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad
from mcgrad.program.bring import bring
from mcgrad.program.dependence import analyze
from mcgrad.program.relation import Window
from mcgrad.program.trace import trace

ROWS, COLUMNS = 4, 3
W = np.asarray(jax.random.normal(jax.random.key(7), (COLUMNS, 5)))
IMAGES = np.asarray(jax.random.normal(jax.random.key(8), (2, 2, COLUMNS, 2)))


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))


def relation_of(fn):
    """The windows of `fn`'s result on a draw of shape [ROWS, COLUMNS]."""

    def program():
        return fn(mcgrad.sample(jax.random.key(0), mcgrad.Normal(jnp.zeros((ROWS, COLUMNS)), 1.0)))

    traced, _ = trace(program)
    analysis = analyze(traced)
    ((_, relation),) = analysis.of(traced.outputs[0]).items()
    return relation


# name: function, how many draws an entry depends on along the rows and along the columns
OPERATIONS = {
    "mlp": (lambda z: jax.nn.relu(z @ W) @ W.T, 1, COLUMNS),
    "softmax": (lambda z: jax.nn.softmax(z, axis=-1), 1, COLUMNS),
    "logsumexp": (lambda z: jax.nn.logsumexp(z, axis=-1), 1, COLUMNS),
    "softplus": (jax.nn.softplus, 1, 1),
    "custom_vjp": (doubled, 1, 1),
    "checkpoint": (jax.checkpoint(lambda z: jnp.sin(z) ** 2), 1, 1),
    "einsum": (lambda z: jnp.einsum("ij,jk,ik->i", z, jnp.asarray(W), z @ W), 1, COLUMNS),
    "sort along the columns": (lambda z: jnp.sort(z, axis=-1), 1, COLUMNS),
    "cumsum along the rows": (lambda z: jnp.cumsum(z, axis=0), "earlier", 1),
    "reversed cumsum": (lambda z: jax.lax.cumsum(z, axis=0, reverse=True), "later", 1),
    "concatenate": (lambda z: jnp.concatenate([z, -z], axis=1), 1, 2),
    "stack": (lambda z: jnp.stack([z, z**2], axis=1), 1, 1),
    "split": (lambda z: jnp.split(z, [1], axis=1)[1], 1, 1),
    "pad": (lambda z: jnp.pad(z, ((1, 0), (0, 2))), 1, 1),
    "one column": (lambda z: z[:, 1] ** 2, 1, 1),
    "difference of steps": (lambda z: z[1:] - z[:-1], 2, 1),
    "where": (lambda z: jnp.where(z > 0, z, 0.1 * z), 1, 1),
    "clip": (lambda z: jnp.clip(z, -1.0, 1.0), 1, 1),
    "take along the columns": (lambda z: jnp.take(z, jnp.array([0, 2]), axis=1), 1, COLUMNS),
    "take_along_axis": (lambda z: jnp.take_along_axis(z, jnp.argmax(z, -1, keepdims=True), axis=-1), 1, COLUMNS),
    "dynamic slice": (lambda z: jax.lax.dynamic_slice_in_dim(z, jnp.array(1), 2, axis=1), 1, COLUMNS),
    "one-hot log likelihood": (
        lambda z: jnp.sum(jax.nn.one_hot(jnp.arange(ROWS) % COLUMNS, COLUMNS) * jax.nn.log_softmax(z), -1),
        1,
        COLUMNS,
    ),
    "outer": (lambda z: z[:, :, None] * z[:, None, :], 1, COLUMNS),
    "attention": (lambda z: jax.nn.softmax(z @ W @ W.T, axis=-1) * z, 1, COLUMNS),
    "a roll by nothing, which joins an empty part": (lambda z: jnp.roll(z, 0), 1, 1),
    "transpose of a roll": (lambda z: jnp.roll(z, 2, axis=1).T, 1, COLUMNS),
    "transpose and reshape": (lambda z: z.T.reshape(COLUMNS, ROWS, 1), 1, 1),
    "reshape column by column": (lambda z: jnp.reshape(z[:COLUMNS], (COLUMNS, COLUMNS), order="F") ** 2, 1, 1),
    "pooling between holes": (
        lambda z: jax.lax.reduce_window(z, 0.0, jax.lax.add, (1, 2), (1, 1), "VALID", base_dilation=(2, 1)),
        ROWS,
        COLUMNS,
    ),
    "convolution": (
        lambda z: jax.lax.conv_general_dilated(
            z[:, None, :, None] * jnp.ones((1, 2, 1, 2)),
            IMAGES,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWOI", "NHWC"),
        ),
        1,
        COLUMNS,
    ),
    "scan over the rows": (
        lambda z: jax.lax.scan(lambda c, x: (0.5 * c + x, c * x), jnp.zeros(COLUMNS), z)[1],
        "earlier",
        1,
    ),
    "reversed scan": (
        lambda z: jax.lax.scan(lambda c, x: (0.5 * c + x, c * x), jnp.zeros(COLUMNS), z, reverse=True)[1],
        "later",
        1,
    ),
    "unknown operation": (lambda z: jnp.fft.fft(z, axis=-1).real, ROWS, COLUMNS),
}


# Operations on a value of any shape, for random chains of them.
LINKS = (
    jnp.sin,
    jnp.transpose,
    jnp.ravel,
    lambda z: jnp.flip(z, -1),
    lambda z: jnp.roll(z, 2, 0),
    lambda z: jnp.roll(z, 2, -1),
    lambda z: jnp.cumsum(z, 0),
    lambda z: jax.lax.cumlogsumexp(z, axis=z.ndim - 1, reverse=True),
    lambda z: jnp.sum(z, -1),
    lambda z: jnp.stack([z, 2 * z], 0),
    lambda z: jnp.concatenate([z, 2 * z], 0),
    lambda z: jnp.stack([z, z + 1], -1),
    lambda z: z[::2],
    lambda z: z[:1] + jnp.mean(z, 0, keepdims=True),
    lambda z: jnp.pad(z, [(1, 0)] * z.ndim),
    lambda z: jnp.repeat(z, 2, 0),
    lambda z: jnp.take(z, jnp.array([0, z.shape[0] - 1, 0]), axis=0),
    lambda z: jnp.sort(z, -1),
    lambda z: jnp.max(z, 0),
    lambda z: jnp.tensordot(z, jnp.ones((z.shape[-1], 2)), 1),
    lambda z: jax.vmap(lambda row: row - jnp.mean(row))(z),
    lambda z: jax.lax.scan(lambda c, x: (0.5 * c + x, c * x), jnp.zeros(z.shape[1:]), z)[1],
    lambda z: jax.lax.scan(lambda c, x: (0.5 * c + x, c * x), jnp.zeros(z.shape[1:]), z, reverse=True)[0],
    lambda z: z.at[0].add(z[-1]),
    lambda z: jnp.diff(z, axis=0, append=0.0),
    lambda z: jax.lax.cond(jnp.sum(z) > 0, lambda z: z[::-1], lambda z: 2 * z, z),
    lambda z: jax.lax.fori_loop(0, 2, lambda i, c: c + jnp.roll(c, 1, 0), z),
    lambda z: jax.lax.associative_scan(jnp.add, z, axis=0),
    jax.checkpoint(lambda z: z - z.mean(0, keepdims=True)),
    lambda z: jnp.reshape(z, z.shape, order="F"),
    lambda z: jnp.ravel(z, order="F"),
)


def chain(choices):
    def fn(z):
        for choice in choices:
            z = LINKS[choice](z if z.ndim else z * jnp.ones(2))
            z = z if z.size <= 400 else z.ravel()[:50]
        return z

    return fn


def windows(relation, shape, plates):
    """For each entry of a value, which draws its windows allow."""
    allowed = np.ones((*shape, *plates), bool)
    for k, (window, plate) in enumerate(zip(relation, plates, strict=True)):
        draw = np.arange(plate).reshape([1] * len(shape) + [plate if j == k else 1 for j in range(len(plates))])
        order = np.argsort(window.axes)
        axes = [shape[a] if a in window.axes else 1 for a in range(len(shape))] + [1] * len(plates)
        at = window.entries(shape).transpose(order).reshape(axes)
        allowed &= (draw >= at + window.low) & (draw <= at + window.high)
    return allowed


@pytest.mark.parametrize("name", OPERATIONS)
def test_windows_hold_all_that_an_entry_depends_on(name):
    check_windows(OPERATIONS[name][0])


CHAINS = np.random.default_rng(0).integers(len(LINKS), size=(240, 4))


@pytest.mark.parametrize(
    "choices", [pytest.param(c, marks=[pytest.mark.slow] * (i >= 24), id=str(c)) for i, c in enumerate(CHAINS.tolist())]
)
def test_windows_of_chains_hold_all_that_an_entry_depends_on(choices):
    check_windows(jax.jit(chain(choices)))


def check_windows(fn):
    relation = relation_of(fn)
    z = jax.random.normal(jax.random.key(1), (ROWS, COLUMNS))
    base = np.asarray(fn(z))
    moved = np.zeros((*base.shape, ROWS, COLUMNS), bool)
    for i in range(ROWS):
        for j in range(COLUMNS):
            for change in (0.37, -5.0, 5.0):
                moved[..., i, j] |= np.abs(np.asarray(fn(z.at[i, j].add(change))) - base) > 1e-12
    allowed = windows(relation, base.shape, (ROWS, COLUMNS))
    assert not np.any(moved & ~allowed)


@pytest.mark.parametrize("name", OPERATIONS)
def test_windows_are_as_narrow_as_the_rules_promise(name):
    fn, rows, columns = OPERATIONS[name]
    relation = relation_of(fn)
    shape = jax.eval_shape(fn, jax.ShapeDtypeStruct((ROWS, COLUMNS), jnp.float64)).shape
    expected = {"earlier": (ROWS + 1) / 2, "later": (ROWS + 1) / 2}
    for window, plate, most in zip(relation, (ROWS, COLUMNS), (rows, columns), strict=True):
        assert window.mean_draws(shape, plate) <= expected.get(most, most) + 1e-9


# Their densities have derivative rules of their own.
LAWS_OF_A_DRAW = {
    "Normal": lambda z: mcgrad.Normal(z, 1.0),
    "Gumbel": lambda z: mcgrad.Gumbel(z, 1.0),
    "Weibull": lambda z: mcgrad.Weibull(jnp.exp(z), 2.0),
    "Gamma": lambda z: mcgrad.Gamma(jnp.exp(z), 1.0),
    "ExpGamma": lambda z: mcgrad.ExpGamma(2.0, jnp.exp(z)),
    "InverseGamma": lambda z: mcgrad.InverseGamma(jnp.exp(z), 1.0),
    "Beta": lambda z: mcgrad.Beta(jnp.exp(z), 2.0),
    "F": lambda z: mcgrad.F(3.0, jnp.exp(z)),
    "StudentT": lambda z: mcgrad.StudentT(jnp.exp(z), z, 1.0),
    "NegativeBinomial": lambda z: mcgrad.NegativeBinomial(jnp.exp(z), logits=0.3),
    "TruncatedNormal": lambda z: mcgrad.TruncatedNormal(z, 1.0, 0.0, 1.0),
}


@pytest.mark.parametrize("name", LAWS_OF_A_DRAW)
def test_densities_and_draws_depend_on_their_own_parameters_only(name):
    law = LAWS_OF_A_DRAW[name]
    at = lambda z: jnp.full(z.shape, 1.0 if law(z).discrete else 0.5)  # noqa: E731
    fns = [lambda z: law(z).log_prob(at(z)), lambda z: mcgrad.sample(jax.random.key(1), law(z))]
    if getattr(law(jnp.zeros(())), "cdf", None) is not None:
        fns.append(lambda z: law(z).cdf(at(z)))

    def program():
        z = mcgrad.sample(jax.random.key(0), mcgrad.Normal(jnp.zeros((ROWS, COLUMNS)), 1.0))
        return [fn(z) for fn in fns]

    traced, _ = trace(program)
    analysis = analyze(traced)
    own = (Window(0, 0, 0), Window(1, 0, 0))
    for output in traced.outputs:
        assert all(relation == own for relation in analysis.of(output).values())
    check_windows(fns[0])


def test_a_function_whose_derivative_alone_depends_on_an_operand_depends_on_all_of_it():
    def path(z):  # the value is that of the first operand
        return mcgrad.implicit_reparameterization(jnp.ones(z.shape), z, cdf=lambda x, z: jax.nn.sigmoid(x - z))

    assert all(not window.axes for window in relation_of(path))


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0, 0),
        (1, 1),
        (-2, -2),
        (-1, 2),
        (-np.inf, 0),
        (0, np.inf),
        (-np.inf, -1),
        (2, np.inf),
        (-7, 1),
        (-np.inf, np.inf),
    ],
)
@pytest.mark.parametrize("length", [3, 9, 12])
def test_weights_are_summed_over_the_window(low, high, length):
    weights = np.asarray(jax.random.normal(jax.random.key(2), (9,)))
    found = bring(jnp.asarray(weights), (Window(0, low, high),), (length,))
    for i in range(length):
        # A wide band may be widened, which is sound; a narrow one is exact.
        exact = sum(weights[j] for j in range(9) if i + low <= j <= i + high)
        if high - low <= 4 or np.isinf(low) or np.isinf(high):
            np.testing.assert_allclose(found[i], exact, atol=1e-12)


def test_a_loop_is_earlier_in_time_and_same_over_environments():
    def rollout(theta, key):
        def step(state, key):
            action = mcgrad.sample(key, mcgrad.Bernoulli(logits=theta * state))
            state = 0.8 * state + action - 0.5
            return state, (state - 1.0) ** 2

        _, rewards = jax.lax.scan(step, jnp.zeros(4), jax.random.split(key, 12))
        return jnp.sum(rewards)

    (cost,) = mcgrad.explain(rollout)(0.3, jax.random.key(0)).costs
    assert cost.shape == (12, 4)
    assert cost.credits[0].axes == ("earlier", "same")


def test_explain_names_what_mixed_an_axis():
    def loss(logits, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))
        return jnp.mean(jnp.tanh(b @ W[:, 0]))

    (cost,) = mcgrad.explain(loss)(jnp.zeros((ROWS, COLUMNS)), jax.random.key(0)).costs
    assert cost.credits[0].axes == ("same", "mixed")
    assert "dot_general" in cost.credits[0].causes[1] and "test_dependence.py" in cost.credits[0].causes[1]


ROW = jnp.linspace(0.5, 1.5, 3)

BATCHED = {
    "solve": lambda x: jnp.linalg.solve(jnp.eye(3) + 0.1 * jnp.outer(x, x), ROW),
    "inverse": lambda x: jnp.linalg.inv(jnp.eye(3) + 0.1 * jnp.outer(x, x)),
    "positive solve": lambda x: jax.scipy.linalg.solve(jnp.eye(3) + 0.1 * jnp.outer(x, x), ROW, assume_a="pos"),
    "conjugate gradients": lambda x: jax.scipy.sparse.linalg.cg(lambda y: y + x * (x @ y), x)[0],
    "digitize": lambda x: 1.0 * jnp.digitize(x, ROW),
    "frexp": lambda x: jnp.frexp(x)[0],
    "searchsorted": lambda x: 1.0 * jnp.searchsorted(ROW, x),
}


@pytest.mark.parametrize("name", BATCHED)
def test_a_batch_axis_stays_apart(name):
    def loss(logits, key):
        x = 0.7 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))
        return jnp.sum(jnp.sin(jax.vmap(BATCHED[name])(x)))

    (cost,) = mcgrad.explain(loss)(jnp.zeros((4, 3)), jax.random.key(0)).costs
    assert cost.credits[0].axes[0] == "same"


def callback(method):
    def host(x):
        return np.sin(np.asarray(x)).sum(-1)

    def call(x):
        return jax.pure_callback(host, jax.ShapeDtypeStruct((), jnp.zeros(()).dtype), x, vmap_method=method)

    def loss(logits, key):
        return jnp.sum(jax.vmap(call)(1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))))

    return loss


def test_an_unknown_operation_on_a_batch_is_warned_of_with_its_line():
    loss, arguments = callback("expand_dims"), (jnp.zeros((4, 3)), jax.random.key(0))
    message = (
        r"no rule for `pure_callback` at .*test_dependence.py:\d+.* its 4 results along axis 0 .* 4 draws .*sequential"
    )
    with pytest.warns(mcgrad.CreditWarning, match=message):
        mcgrad.grad(loss)(*arguments)
    (cost,) = mcgrad.explain(callback("sequential"))(*arguments).costs
    assert cost.credits[0].axes == ("same", "mixed")


def test_an_operation_that_mixes_truly_and_a_vector_for_a_callback_are_not_warned_of():
    def batch_norm(logits, key):
        b = 1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))
        return jnp.sum((b - b.mean(0, keepdims=True)) ** 3)

    def simulator(logits, key):
        b = 1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))
        out = jax.ShapeDtypeStruct((), b.dtype)
        return jax.pure_callback(lambda b: np.sum(b) ** 2, out, b)

    for loss in (batch_norm, simulator):
        mcgrad.explain(loss, estimator=mcgrad.Score())(jnp.zeros((4, 3)), jax.random.key(0))
