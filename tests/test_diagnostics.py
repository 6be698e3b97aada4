"""Chunks of samples, statistics of gradients, and comparisons of estimators."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mcgrad

LOGITS = np.linspace(-1.0, 1.0, 3)


def squared_count(logits, key):
    """One cost of several draws, skewed: `E = sum p (1 - p) + (sum p - 1.3)**2`."""
    return (jnp.sum(mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))) - 1.3) ** 2


def smooth(loc, key):
    return jnp.sum(jnp.tanh(mcgrad.sample(key, mcgrad.Normal(loc, 1.0))) ** 2)


def exact_gradient(logits):
    p = jax.nn.sigmoid(logits)
    return p * (1 - p) * (1 - 2 * p + 2 * (jnp.sum(p) - 1.3))


def test_chunks_change_memory_and_nothing_else():
    loc = np.linspace(-1.0, 1.0, 32)

    def compiled(**options):
        gradient = jax.jit(mcgrad.value_and_grad(smooth, **options))
        with jax.default_device(jax.devices("cpu")[0]):  # others fuse much of what is held in memory
            return gradient.lower(loc, jax.random.key(0)).compile()

    def memory(executable):
        return executable.memory_analysis().temp_size_in_bytes

    whole, chunked = compiled(num_samples=2048), compiled(num_samples=2048, chunk_size=128)
    for expected, got in zip(whole(loc, jax.random.key(0)), chunked(loc, jax.random.key(0)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    one_chunk = memory(compiled(num_samples=128))
    assert memory(whole) > 10 * one_chunk
    assert memory(chunked) < 1.2 * one_chunk
    # Each of the 782 chunks leaves its value and its number, 16 bytes; its gradient is added up.
    assert memory(compiled(num_samples=100_096, chunk_size=128)) < memory(chunked) + 20 * 782


def test_leave_one_out_is_among_the_samples_of_a_chunk():
    fold_in = jax.vmap(jax.random.fold_in, (None, 0))

    def by_hand(logits, key):
        """The mean over chunks of the leave-one-out estimate of each chunk."""
        keys = fold_in(key, jnp.arange(12)).reshape(3, 4)
        b = jax.vmap(jax.vmap(lambda k: mcgrad.sample(k, mcgrad.Bernoulli(logits=logits))))(keys)  # [3, 4, 3]
        cost = (b.sum(-1) - 1.3) ** 2
        others = (cost.sum(1, keepdims=True) - cost) / 3
        return jnp.mean((cost - others)[..., None] * (b - jax.nn.sigmoid(logits)[None, None, :]), axis=(0, 1))

    key = jax.random.key(1)
    gradient = jax.jit(mcgrad.score_grad(squared_count, num_samples=12, chunk_size=4))
    np.testing.assert_allclose(gradient(LOGITS, key), jax.jit(by_hand)(LOGITS, jax.random.clone(key)), rtol=1e-12)


def test_chunks_have_second_derivatives_and_auxiliary_output():
    def with_draws(logits, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))
        return (jnp.sum(b) - 1.3) ** 2, b

    value = mcgrad.expectation(with_draws, estimator=mcgrad.Enumerate(), num_samples=6, chunk_size=2, has_aux=True)
    hessian, draws = jax.jit(jax.hessian(value, has_aux=True))(LOGITS, jax.random.key(0))
    np.testing.assert_allclose(hessian, jax.jacfwd(exact_gradient)(LOGITS), rtol=1e-9)
    assert draws.shape == (6, 3) and len(np.unique(draws, axis=0)) > 1


def test_chunks_must_divide_the_samples():
    with pytest.raises(ValueError, match="must divide `num_samples`, got 4 for 10. Take 12 samples"):
        mcgrad.pathwise_grad(smooth, num_samples=10, chunk_size=4)
    with pytest.raises(ValueError, match=r"chunk_size=...\)` must be a positive int, got 0"):
        mcgrad.expectation(smooth, chunk_size=0)


# ---------------------------------------------------------------- statistics


def two_leaves(params, key):
    z = mcgrad.sample(key, mcgrad.Normal(params["loc"], jnp.exp(params["log_scale"])), mcgrad.Pathwise())
    return jnp.sum(jnp.sin(z)) + jnp.sum(z**2)


PARAMS = {"loc": np.array([0.3, -1.0]), "log_scale": np.array(0.1)}


@pytest.mark.parametrize(("num_samples", "chunk_size"), [(50, 7), (30, 1000), (5, 1)])
def test_streamed_statistics_are_those_of_all_gradients_together(num_samples, chunk_size):
    key = jax.random.key(0)
    found = mcgrad.gradient_statistics(two_leaves, num_samples, chunk_size)(PARAMS, key)
    rows = jax.jit(mcgrad.per_sample_grad(two_leaves, num_samples=num_samples))(PARAMS, jax.random.clone(key))
    total = square = 0.0
    for name, row in rows.items():
        row = np.asarray(row)
        assert row.shape == (num_samples, *PARAMS[name].shape)
        mean, variance = row.mean(0), row.var(0, ddof=1)
        np.testing.assert_allclose(found.mean[name], mean, rtol=1e-12)
        np.testing.assert_allclose(found.variance[name], variance, rtol=1e-11)
        np.testing.assert_allclose(found.standard_error[name], np.sqrt(variance / num_samples), rtol=1e-11)
        signal = max(np.sum(mean**2) - variance.sum() / num_samples, 0)
        np.testing.assert_allclose(found.signal_to_noise[name], np.sqrt(signal / variance.sum()), rtol=1e-9)
        total, square = total + variance.sum(), square + np.sum(mean**2)
    np.testing.assert_allclose(found.total_variance, total, rtol=1e-11)
    np.testing.assert_allclose(found.total_standard_error, np.sqrt(total / num_samples), rtol=1e-11)
    expected = np.sqrt(max(square - total / num_samples, 0) / total)
    np.testing.assert_allclose(found.total_signal_to_noise, expected, rtol=1e-9)
    assert found.num_samples == num_samples


def test_statistics_take_constant_memory_and_keep_half_precision_exact():
    loc = jnp.linspace(-1.0, 1.0, 32, dtype=jnp.bfloat16)

    def memory(num_samples):
        compiled = mcgrad.gradient_statistics(smooth, num_samples, 64).lower(loc, jax.random.key(0)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(100_000) < 1.2 * memory(640)
    assert mcgrad.gradient_statistics(smooth, 64)(loc, jax.random.key(0)).mean.dtype == jnp.float32


def test_statistics_follow_argnums_and_estimator():
    def scaled(scale, logits, *, key):
        return scale * squared_count(logits, key)

    exact = mcgrad.Enumerate()
    found = mcgrad.gradient_statistics(scaled, 3, argnums=(1, 0), estimator=exact)(2.0, LOGITS, key=jax.random.key(0))
    np.testing.assert_allclose(found.mean[0], 2.0 * exact_gradient(LOGITS), rtol=1e-12)
    np.testing.assert_allclose(found.total_variance, 0, atol=1e-25)


def test_statistics_are_a_pytree_whose_number_of_samples_is_no_leaf():
    found = mcgrad.gradient_statistics(lambda c, key: 3.0 * jnp.sum(c), 4)(jnp.ones(2), jax.random.key(0))
    assert isinstance(found, mcgrad.GradientStatistics)
    twice = jax.tree.map(lambda leaf: 2 * leaf, found)
    np.testing.assert_array_equal(twice.mean, [6.0, 6.0])
    np.testing.assert_array_equal(found.variance, [0.0, 0.0])
    assert twice.num_samples == found.num_samples == 4
    assert found.total_standard_error == 0 and np.isinf(found.total_signal_to_noise)


def test_samples_for_is_the_number_that_gives_the_error():
    def square(loc, key):  # g = 2 x with x ~ Normal(1, 1): |g| = 2, V = 4
        return mcgrad.sample(key, mcgrad.Normal(loc, 1.0)) ** 2

    number = mcgrad.samples_for(square, 0.1, pilot_samples=20_000)(1.0, jax.random.key(0))
    assert 95 <= number <= 105
    assert mcgrad.samples_for(square, 0.1, estimator=mcgrad.Score())(1.0, jax.random.key(0)) > 300
    assert mcgrad.samples_for(lambda loc, key: 3.0 * loc, 0.1)(1.0, jax.random.key(0)) == 1
    with pytest.raises(ValueError, match="enough to tell the gradient from zero, got 50"):
        mcgrad.samples_for(square, 0.1, pilot_samples=50)(0.0, jax.random.key(0))


def test_gradients_that_are_not_finite_have_no_signal_to_noise():
    def infinite(params, key):
        z = mcgrad.sample(key, mcgrad.Normal(params["loc"], 1.0))
        return jnp.sum(jnp.where(z > 0, z, jnp.sqrt(z))) + 0.5 * jnp.sum(params["other"] ** 2)

    params = {"loc": jnp.zeros(2), "other": jnp.ones(2)}
    found = mcgrad.gradient_statistics(infinite, 32)(params, jax.random.key(0))
    assert np.isnan(found.signal_to_noise["loc"]) and np.isnan(found.total_signal_to_noise)
    assert np.isinf(found.signal_to_noise["other"])
    with pytest.raises(ValueError, match="must find a finite gradient and variance, got a total variance of nan"):
        mcgrad.samples_for(lambda loc, key: jnp.inf * smooth(loc, key), 0.1, 10)(jnp.zeros(2), jax.random.key(0))


def test_programs_without_a_draw_of_mcgrad_are_spoken_of():
    def unseen(logits, key):
        return jnp.sum(mcgrad.Bernoulli(logits=logits).sample(key) * logits)

    arguments = LOGITS, jax.random.key(0)
    seen = pytest.warns(mcgrad.JumpWarning, match=r"`jax.random.bernoulli` at .*test_diagnostics.py:\d+")
    with seen, pytest.warns(UserWarning, match="`unseen` uses its key, but never in `mcgrad.sample`"):
        mcgrad.samples_for(unseen, 0.1)(*arguments)
    with pytest.raises(ValueError, match="must get a program that draws through `mcgrad.sample`"):
        mcgrad.compare(unseen, [mcgrad.Score(), mcgrad.Pathwise()])(*arguments)
    assert str(mcgrad.explain(unseen)(*arguments)).startswith(
        "0 draws through `mcgrad.sample`: derivatives are those of"
    )


def test_bad_options_of_the_statistics_are_refused():
    with pytest.raises(ValueError, match=r"num_samples=...\)` must be an int of at least 2, got 1"):
        mcgrad.gradient_statistics(smooth, 1)
    with pytest.raises(ValueError, match=r"chunk_size=...\)` must be a positive int, got 0"):
        mcgrad.gradient_statistics(smooth, 10, 0)
    with pytest.raises(ValueError, match=r"per_sample_grad\(num_samples=...\)` must be a positive int"):
        mcgrad.per_sample_grad(smooth, num_samples=0)
    with pytest.raises(ValueError, match="must be positive, got 0"):
        mcgrad.samples_for(smooth, 0.0)
    with pytest.raises(ValueError, match="must find the argument named `key`"):
        mcgrad.per_sample_grad(lambda x, noise: x, num_samples=2)(1.0, 2.0)


# ---------------------------------------------------------------- noise while training


def test_gradient_noise_is_the_weighted_mean_and_variance():
    decay, rows = 0.8, np.random.default_rng(0).normal(1.0, 2.0, (7, 3))
    transformation = mcgrad.gradient_noise(decay)
    state = transformation.init({"w": jnp.zeros(3)})
    update = jax.jit(transformation.update)
    for t, row in enumerate(rows):
        passed, state = update({"w": jnp.asarray(row)}, state)
        np.testing.assert_array_equal(passed["w"], row)
        if t == 0:
            assert np.isinf(state.variance["w"]).all() and state.total_signal_to_noise == 0
    weights = decay ** np.arange(7)[::-1]
    weights /= weights.sum()
    mean = weights @ rows
    variance = weights @ (rows - mean) ** 2 / (1 - np.sum(weights**2))
    np.testing.assert_allclose(state.mean["w"], mean, rtol=1e-12)
    np.testing.assert_allclose(state.variance["w"], variance, rtol=1e-12)
    noise = variance.sum()
    expected = np.sqrt(max(np.sum(mean**2) - np.sum(weights**2) * noise, 0) / noise)
    np.testing.assert_allclose(state.signal_to_noise["w"], expected, rtol=1e-10)
    np.testing.assert_allclose(state.total_signal_to_noise, expected, rtol=1e-10)


def test_gradient_noise_of_two_gradients_of_equal_weight():
    """Of 1 and 5: mean 3, variance 8; the square of the mean is too large by half of that."""
    state = mcgrad.GradientNoise(jnp.asarray(1.0), jnp.asarray(0.5), {"w": jnp.array([3.0])}, {"w": jnp.array([4.0])})
    np.testing.assert_allclose(state.variance["w"], [8.0])
    np.testing.assert_allclose(state.signal_to_noise["w"], np.sqrt((9 - 8 / 2) / 8))
    np.testing.assert_allclose(state.total_signal_to_noise, state.signal_to_noise["w"])


def test_gradient_noise_stands_in_a_chain():
    with_noise, without = optax.chain(mcgrad.gradient_noise(), optax.adam(0.1)), optax.adam(0.1)
    params = jnp.ones(3, jnp.float32)
    updates, _ = with_noise.update(2 * params, with_noise.init(params))
    expected, _ = without.update(2 * params, without.init(params))
    np.testing.assert_array_equal(updates, expected)
    with pytest.raises(ValueError, match=r"must be in \(0, 1\), got 1.0"):
        mcgrad.gradient_noise(1.0)


def test_noise_of_gradients_that_are_not_finite_is_no_number():
    transformation = mcgrad.gradient_noise(0.9)
    state = transformation.init(jnp.zeros(2))
    for entry in (1.0, jnp.nan, 2.0):
        _, state = transformation.update(jnp.array([entry, 1.0]), state)
    assert np.isnan(state.signal_to_noise) and np.isnan(state.total_signal_to_noise)


# ---------------------------------------------------------------- comparison


@dataclasses.dataclass(frozen=True)
class ScoreOfHalfWeight(mcgrad.LocalEstimator):
    """Deliberately wrong: 10 % of the score is missing."""

    def represent(self, draw):
        x = draw.sample()
        return mcgrad.WeightedPoint(x, 0.9 * draw.log_prob(x))


@functools.cache
def compared():
    estimators = {
        "score": mcgrad.Score(),
        "score, 4 points": mcgrad.Score(num_samples=4),
        "smoothed": mcgrad.SmoothedPerturbation(),
        "exact": mcgrad.Enumerate(),
        "wrong": ScoreOfHalfWeight(),
        "pathwise": mcgrad.Pathwise(),
    }
    return mcgrad.compare(squared_count, estimators, num_samples=30_001, chunk_size=1000)(LOGITS, jax.random.key(0))


def test_a_wrong_estimator_is_biased_and_right_ones_are_not():
    found = compared()
    assert found.source == "the exact gradient, by `mcgrad.Enumerate()`"
    np.testing.assert_allclose(found.reference, exact_gradient(LOGITS), rtol=1e-12)
    verdicts = {name: report.verdict for name, report in found.reports.items()}
    assert verdicts.pop("wrong") == "biased" and found.reports["wrong"].biased
    assert set(verdicts.values()) == {"agrees"}
    assert list(found.refused) == ["pathwise"] and "Bernoulli is discrete" in found.refused["pathwise"]


def test_a_comparison_measures_each_estimator():
    found = compared()
    reports = found.reports
    assert {name: r.evaluations for name, r in reports.items()} == {
        "score": 1,
        "score, 4 points": 4,
        "smoothed": 1 + 2 * 3,
        "exact": 2**3,
        "wrong": 1,
    }
    assert reports["exact"].variance < 1e-20 and reports["exact"].distance < 1e-12
    assert max(reports["smoothed"].variance, reports["score, 4 points"].variance) < reports["score"].variance
    score = reports["score"]
    assert score.seconds > 0 and score.variance_time == score.variance * score.seconds
    np.testing.assert_allclose(score.distance_error, score.statistics.total_standard_error, rtol=1e-9)
    np.testing.assert_allclose(score.distance, np.linalg.norm(score.statistics.mean - found.reference), rtol=1e-9)
    assert found.chunk_size <= 1000 and score.statistics.num_samples == 30_001


def test_a_comparison_prints_and_draws_itself(tmp_path):
    found = compared()
    text = str(found)
    for word in ("score, 4 points", "wrong", "biased", "agrees", "pathwise was refused", "var x time"):
        assert word in text
    assert max(map(len, text.split("\n\n")[1].splitlines())) <= 80
    path = found.plot(tmp_path / "picture.png")
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


def test_statistics_draw_themselves(tmp_path):
    def program(params, key):
        return jnp.sum(mcgrad.sample(key, mcgrad.Normal(params["loc"], params["scale"])) ** 2)

    params = {"loc": jnp.ones(3), "scale": jnp.ones(())}
    found = mcgrad.gradient_statistics(program, 100)(params, jax.random.key(0))
    path = found.plot(tmp_path / "picture.svg")
    text = path.read_text()
    assert "'loc'" in text and "'scale'" in text and "signal-to-noise" in text


def test_a_comparison_made_by_hand_prints_its_numbers():
    nothing = jnp.zeros(())
    statistics = mcgrad.GradientStatistics(nothing, nothing, nothing, nothing, jnp.asarray(2.0), nothing, nothing, 10)
    report = mcgrad.EstimatorReport(statistics, 0.25, 0.5, 1.5, "undecided", 3e-6, 1200)
    assert (report.variance, report.variance_time, report.biased) == (2.0, 6e-6, False)
    text = str(mcgrad.Comparison({"one": report}, {"two": "not today"}, nothing, "the truth", 3.5, 10, 5))
    lines = text.splitlines()
    assert lines[0] == "10 gradients of each estimator"
    assert lines[3].split() == ["one", "0.25", "±", "0.5", "1.5", "2", "3", "6", "1,200", "undecided"]
    assert (
        "Distances from the truth, of length 0. Biased: more than 3.5 standard" in text
        and "two was refused: not today" in text
    )


def test_a_comparison_says_which_draws_keep_an_estimator_of_their_own():
    def program(t, key):
        k_one, k_other = jax.random.split(key)
        bit = mcgrad.sample(k_one, mcgrad.Bernoulli(logits=t), mcgrad.Score(baseline=0.3), name="own")
        return jnp.sin(2.0 * bit + 0.3 * mcgrad.sample(k_other, mcgrad.Bernoulli(logits=t)))

    found = mcgrad.compare(program, [mcgrad.Score(), mcgrad.Enumerate()], num_samples=100)(0.3, jax.random.key(0))
    (named,) = found.named
    assert "(name='own')" in named and named.endswith("by `Score`")
    assert "Every row differentiates the draw from Bernoulli (name='own')" in " ".join(str(found).split())


def test_no_name_is_broken_in_eighty_columns():
    name = "score with leave-one-out baselines of four samples"
    report = compared().reports["score"]
    lines = str(dataclasses.replace(compared(), reports={name: report, "short": report}, refused={})).splitlines()
    assert lines[3] == name and lines[4].endswith("agrees") and lines[5].startswith("short ")
    assert lines[4].strip() == lines[5].removeprefix("short").strip() and len(lines[4]) == len(lines[5]) <= 80


def jump(loc, key):
    """A cost that jumps: the pathwise gradient misses the jump."""
    x = mcgrad.sample(key, mcgrad.Normal(loc, 1.0))
    return jnp.where(x > 0, 2.0, 0.0) + x


def test_without_an_exact_gradient_the_majority_that_agrees_is_the_reference():
    score, several, pathwise = mcgrad.Score(), mcgrad.Score(num_samples=3), mcgrad.Pathwise(jumps="ignore")
    key = jax.random.key(0)
    found = mcgrad.compare(jump, [score, several, pathwise])(0.5, key)
    assert [(name, r.verdict) for name, r in found.reports.items()] == [
        ("Score#0", "agrees"),
        ("Score#1", "agrees"),
        ("Pathwise", "biased"),
    ]
    assert found.source == "the pooled mean of the majority that agrees"
    exact = 1 + 2 * jax.scipy.stats.norm.pdf(0.5)
    assert abs(found.reference - exact) < 5 * found.reports["Score#1"].distance_error + 0.05

    tied = mcgrad.compare(jump, {"score": score, "pathwise": pathwise})(0.5, jax.random.clone(key))
    assert {r.verdict for r in tied.reports.values()} == {"undecided"}
    told = mcgrad.compare(jump, [score, pathwise], reference=exact)(0.5, jax.random.clone(key))
    assert [r.verdict for r in told.reports.values()] == ["agrees", "biased"]
    assert told.source == "the reference given"


def test_randomness_that_is_no_draw_of_mcgrad_leaves_no_exact_gradient():
    def noisy(logits, key):
        k_draw, k_noise = jax.random.split(key)
        return squared_count(logits, k_draw) * (1 + jax.random.normal(k_noise))

    found = mcgrad.compare(noisy, {"enumerate": mcgrad.Enumerate()}, num_samples=64)(LOGITS, jax.random.key(0))
    assert found.source == "the pooled mean"


def test_numbers_that_are_not_finite_are_reported(tmp_path):
    def infinite(loc, key):
        x = mcgrad.sample(key, mcgrad.Normal(loc, 1.0))
        return jnp.where(x > 5.0, x, x / 0.0)

    found = mcgrad.compare(infinite, {"[score]": mcgrad.Score()}, num_samples=64)(0.0, jax.random.key(0))
    assert found.reports["[score]"].verdict == "not finite" and "[score]" in str(found)
    assert found.plot(tmp_path / "picture.png").exists()


def test_bad_comparisons_are_refused(monkeypatch, tmp_path):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="at least one estimator"):
        mcgrad.compare(jump, {})
    with pytest.raises(TypeError, match="must be estimators .* for 'score'"):
        mcgrad.compare(jump, {"score": mcgrad.Score})
    with pytest.raises(ValueError, match=r"compare\(num_samples=...\)` must be an int of at least 2"):
        mcgrad.compare(jump, [mcgrad.Score()], num_samples=1)
    with pytest.raises(ValueError, match="Bernoulli is discrete"):
        mcgrad.compare(squared_count, [mcgrad.Pathwise()])(LOGITS, key)
    with pytest.raises(ValueError, match=r"reference=...\)` must have the structure and shapes of the gradient"):
        mcgrad.compare(jump, [mcgrad.Score()], reference=jnp.zeros(2), num_samples=4)(0.5, key)
    found = compared()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for use in (
        lambda: found.plot(tmp_path / "picture.png"),
        lambda: mcgrad.compare(jump, [mcgrad.Score()], progress=True),
    ):
        with pytest.raises(ImportError, match=r'pip install "\.\[diagnostics\]"` in a clone'):
            use()
    assert "score, 4 points" in str(found)  # as text it needs nothing


def test_a_pilot_finds_the_estimator_of_least_variance():
    estimators = {"score": mcgrad.Score(), "path": mcgrad.Pathwise(), "not for this law": mcgrad.DisARM()}
    loc = jnp.linspace(-1.0, 1.0, 3)
    pilot = mcgrad.least_variance(smooth, estimators, num_samples=500)
    assert pilot(loc, jax.random.key(0)) is estimators["path"]

    def far_off(
        loc, key
    ):  # the score has thousands of times the variance, so that no timing can turn the product around
        return jnp.sum((mcgrad.sample(key, mcgrad.Normal(loc, 1.0)) + 100.0) ** 2)

    by_name = mcgrad.least_variance(far_off, list(estimators.values())[:2], measure="variance_time", num_samples=500)
    assert by_name(loc, jax.random.key(0)) is estimators["path"]


def test_a_pilot_over_all_couplings_follows_the_cost():
    """For a cost even around the mean sharing the noise has no variance; for a monotone one quantiles are best."""
    for cost, coupling in ((jnp.square, "shared"), (jnp.arcsinh, "comonotone")):

        def loss(loc, key, cost=cost):
            return cost(mcgrad.sample(key, mcgrad.Normal(loc, 1.0)))

        found = mcgrad.least_variance(loss, num_samples=500)(0.0, jax.random.key(0))
        assert found.coupling == coupling


def test_a_pilot_refuses_what_it_cannot_judge():
    with pytest.raises(ValueError, match=r'least_variance\(measure=...\)` must be "variance" or "variance_time"'):
        mcgrad.least_variance(smooth, measure="time")
    with pytest.raises(
        ValueError, match=r"least_variance\(estimators=...\)` must contain one with a finite, unbiased gradient"
    ):
        mcgrad.least_variance(lambda loc, key: smooth(loc, key) * jnp.inf, [mcgrad.Score()], num_samples=4)(
            jnp.zeros(3), jax.random.key(0)
        )
