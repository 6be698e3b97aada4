"""Programs of real size, in many operations on small arrays, each next to the surrogate that one writes for it by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from benchmarks.peers.by_hand import case_by_hand, stop, unit
from benchmarks.peers.jax_case import jax_case
from benchmarks.worker import Case
from mcgrad.program.plan import make_plan
from mcgrad.program.trace import trace


def _case(program: Callable[..., jax.Array], params: Any, **options: Any) -> Case:
    return jax_case(mcgrad.value_and_grad(program, estimator=mcgrad.Score(), **options), params)


def _drawn(key: jax.Array, logits: jax.Array) -> jax.Array:
    return mcgrad.Bernoulli(logits=stop(logits)).sample(key).astype(jnp.float32)


def _log_prob(logits: jax.Array, bits: jax.Array) -> jax.Array:
    return bits * logits - jax.nn.softplus(logits)


def _normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape) / np.sqrt(shape[0] if len(shape) > 1 else 1)


# ---------------------------------------------------------------- a transformer autoencoder around one layer of bits

BLOCKS, WIDTH, HEADS, TOKENS, EXAMPLES = 24, 64, 2, 8, 4


def _normed(x: jax.Array, scale: jax.Array) -> jax.Array:
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5) * scale


def _attention(params: Any, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    query, key, value = jnp.split((x @ params["in"]).reshape(*x.shape[:-1], HEADS, -1), 3, axis=-1)
    scores = jnp.einsum("...qhd,...khd->...hqk", query, key) / np.sqrt(WIDTH // HEADS)
    scores = scores if mask is None else jnp.where(mask, scores, -1e9)
    mixed = jnp.einsum("...hqk,...khd->...qhd", jax.nn.softmax(scores, axis=-1), value)
    return mixed.reshape(x.shape) @ params["out"]


def _block(params: Any, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    x = x + _attention(params, _normed(x, params["norm"]), mask)
    return x + jax.nn.gelu(_normed(x, params["norm"]) @ params["up"]) @ params["down"]


def _blocks(number: int, seed: int) -> list[dict[str, jax.Array]]:
    return [
        {
            "norm": jnp.ones(WIDTH),
            "in": _normal(seed + 4 * i, WIDTH, 3 * WIDTH),
            "out": _normal(seed + 4 * i + 1, WIDTH, WIDTH) / 4,
            "up": _normal(seed + 4 * i + 2, WIDTH, 2 * WIDTH),
            "down": _normal(seed + 4 * i + 3, 2 * WIDTH, WIDTH) / 4,
        }
        for i in range(number)
    ]


def _through(blocks: list[Any], x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    for block in blocks:
        x = _block(block, x, mask)
    return x


def _autoencoder() -> tuple[jax.Array, dict[str, Any]]:
    return _normal(0, EXAMPLES, TOKENS, WIDTH), {"encoder": _blocks(BLOCKS, 1), "decoder": _blocks(BLOCKS, 1001)}


def transformer(num_samples: int) -> Case:
    x, params = _autoencoder()

    def program(params: Any, key: jax.Array) -> jax.Array:
        bits = mcgrad.sample(key, mcgrad.Bernoulli(logits=_through(params["encoder"], x)))
        return jnp.mean(jnp.sum((_through(params["decoder"], bits) - x) ** 2, axis=(1, 2)))

    return _case(program, params, num_samples=num_samples)


def transformer_by_hand(num_samples: int) -> Case:
    """One encoding; the costs of the others are the baseline of each sample."""
    x, params = _autoencoder()

    def surrogate(params: Any, key: jax.Array) -> jax.Array:
        logits = _through(params["encoder"], x)

        def sample(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            bits = _drawn(key, logits)
            cost = jnp.sum((_through(params["decoder"], bits) - x) ** 2, axis=(1, 2))
            return cost, unit(jnp.sum(_log_prob(logits, bits), axis=(1, 2)))

        if num_samples == 1:
            cost, weight = sample(key)
            return jnp.mean(cost * weight)
        cost, weight = jax.vmap(sample)(jax.random.split(key, num_samples))
        fixed = stop(cost)
        return jnp.mean(cost * weight + (1 - weight) * (jnp.sum(fixed, axis=0) - fixed) / (num_samples - 1))

    return case_by_hand(surrogate, params)


# ---------------------------------------------------------------- a residual network with batch norm around classes

CHANNELS, SIDE, STAGES, CLASSES = 8, 8, 6, 10


def _convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _residual(params: Any, x: jax.Array) -> jax.Array:
    def layer(x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = _convolved(x, kernel)
        mean, var = jnp.mean(y, axis=(0, 1, 2)), jnp.var(y, axis=(0, 1, 2))
        return (y - mean) * jax.lax.rsqrt(var + 1e-5) * params["scale"] + params["shift"]

    return jax.nn.relu(x + layer(jax.nn.relu(layer(x, params["first"])), params["second"]))


def _resnet() -> tuple[jax.Array, dict[str, Any]]:
    def stages(seed: int) -> list[dict[str, jax.Array]]:
        return [
            {
                "first": _normal(seed + 2 * i, 3, 3, CHANNELS, CHANNELS) / CHANNELS,
                "second": _normal(seed + 2 * i + 1, 3, 3, CHANNELS, CHANNELS) / CHANNELS,
                "scale": jnp.ones(CHANNELS),
                "shift": jnp.zeros(CHANNELS),
            }
            for i in range(STAGES)
        ]

    params = {"encoder": stages(1), "decoder": stages(101)}
    params |= {"classes": _normal(201, CHANNELS, CLASSES), "code": _normal(202, CLASSES, CHANNELS)}
    return _normal(0, 2 * EXAMPLES, SIDE, SIDE, CHANNELS), params


def _decoded(params: Any, chosen: jax.Array) -> jax.Array:
    x = jnp.broadcast_to((chosen @ params["code"])[:, None, None], (2 * EXAMPLES, SIDE, SIDE, CHANNELS))
    for stage in params["decoder"]:
        x = _residual(stage, x + 0.1)
    return x


def _class_logits(params: Any, x: jax.Array) -> jax.Array:
    for stage in params["encoder"]:
        x = _residual(stage, x)
    return jnp.mean(x, axis=(1, 2)) @ params["classes"]


def resnet() -> Case:
    x, params = _resnet()

    def program(params: Any, key: jax.Array) -> jax.Array:
        chosen = mcgrad.sample(key, mcgrad.OneHotCategorical(logits=_class_logits(params, x))).astype(jnp.float32)
        return jnp.mean((_decoded(params, chosen) - x) ** 2)

    return _case(program, params)


def resnet_by_hand() -> Case:
    """Batch norm after the draw mixes examples, so that all costs have the weight of all draws."""
    x, params = _resnet()

    def surrogate(params: Any, key: jax.Array) -> jax.Array:
        logits = _class_logits(params, x)
        chosen = mcgrad.OneHotCategorical(logits=stop(logits)).sample(key).astype(jnp.float32)
        log_prob = jnp.sum(chosen * jax.nn.log_softmax(logits))
        return jnp.mean((_decoded(params, chosen) - x) ** 2) * unit(log_prob)

    return case_by_hand(surrogate, params)


# ---------------------------------------------------------------- layers that are left out at random

LAYERS, UNITS, ROWS = 64, 16, 8


def _stack() -> dict[str, jax.Array]:
    return {"layers": 0.3 * _normal(1, UNITS, UNITS * LAYERS).reshape(LAYERS, UNITS, UNITS), "keep": jnp.ones(LAYERS)}


def _layer(x: jax.Array, weights: jax.Array, bit: jax.Array) -> jax.Array:
    return x + bit[:, None] * jnp.tanh(x @ weights)


def stochastic_depth(scan: bool) -> Case:
    start = _normal(0, ROWS, UNITS)

    def program(params: Any, key: jax.Array) -> jax.Array:
        def step(x: jax.Array, layer: Any) -> tuple[jax.Array, None]:
            weights, logit, key = layer
            bit = mcgrad.sample(key, mcgrad.Bernoulli(logits=jnp.full(ROWS, logit)))
            return _layer(x, weights, bit), None

        return jnp.mean(jnp.sum(_over(scan, step, start, params, key) ** 2, axis=1))

    return _case(program, _stack())


def stochastic_depth_by_hand(scan: bool) -> Case:
    start = _normal(0, ROWS, UNITS)

    def surrogate(params: Any, key: jax.Array) -> jax.Array:
        def step(carry: Any, layer: Any) -> tuple[Any, None]:
            (x, log_weight), (weights, logit, key) = carry, layer
            logits = jnp.full(ROWS, logit)
            bit = _drawn(key, logits)
            return (_layer(x, weights, bit), log_weight + _log_prob(logits, bit)), None

        x, log_weight = _over(scan, step, (start, jnp.zeros(ROWS)), params, key)
        return jnp.mean(jnp.sum(x**2, axis=1) * unit(log_weight))

    return case_by_hand(surrogate, _stack())


def _over(scan: bool, step: Callable[..., Any], carry: Any, params: Any, key: jax.Array) -> Any:
    xs = params["layers"], params["keep"], jax.random.split(key, LAYERS)
    if scan:
        return jax.lax.scan(step, carry, xs)[0]
    for i in range(LAYERS):
        carry, _ = step(carry, jax.tree.map(lambda x, i=i: x[i], xs))
    return carry


# ---------------------------------------------------------------- scalar draws, a line each; costs, a line each


def _draws(number: int) -> tuple[Any, Any]:
    """The program, and the surrogate by hand."""

    def program(params: jax.Array, key: jax.Array) -> jax.Array:
        keys, total = jax.random.split(key, number), jnp.float32(0.0)
        for i in range(number):
            total = total + mcgrad.sample(keys[i], mcgrad.Bernoulli(logits=params[i]))
        return (total / number - 0.3) ** 2

    def surrogate(params: jax.Array, key: jax.Array) -> jax.Array:
        keys, total, log_weight = jax.random.split(key, number), jnp.float32(0.0), jnp.float32(0.0)
        for i in range(number):
            bit = _drawn(keys[i], params[i])
            total, log_weight = total + bit, log_weight + _log_prob(params[i], bit)
        return (total / number - 0.3) ** 2 * unit(log_weight)

    return program, surrogate


def _costs(number: int) -> tuple[Any, Any]:
    """Draws, and costs of each of them that are summed one after another."""

    def program(params: jax.Array, key: jax.Array) -> jax.Array:
        bits, cost = mcgrad.sample(key, mcgrad.Bernoulli(logits=params)), jnp.float32(0.0)
        for i in range(number):
            cost = cost + jnp.sum(jnp.sin((1 + i / number) * bits))
        return cost

    def surrogate(params: jax.Array, key: jax.Array) -> jax.Array:
        bits, cost = _drawn(key, params), jnp.float32(0.0)
        weight = unit(_log_prob(params, bits))
        for i in range(number):
            cost = cost + jnp.sum(jnp.sin((1 + i / number) * bits) * weight)
        return cost

    return program, surrogate


def many_draws(number: int) -> Case:
    return _case(_draws(number)[0], jnp.zeros(number))


def many_draws_by_hand(number: int) -> Case:
    return case_by_hand(_draws(number)[1], jnp.zeros(number))


def planning(lines: str, number: int) -> Case:
    """Seconds of the processor, nothing compiled: to plan a program, to trace its gradient, and that by hand."""
    program, surrogate = {"draws": _draws, "costs": _costs}[lines](number)
    gradients = mcgrad.value_and_grad(program, estimator=mcgrad.Score()), jax.value_and_grad(surrogate)

    def planned(params: jax.Array, key: jax.Array) -> int:
        traced, _ = trace(lambda: program(params, key))
        began = time.process_time()
        make_plan(traced, 1, mcgrad.Score())
        seconds["plan"] = min(seconds.get("plan", np.inf), time.process_time() - began)
        return 0

    seconds: dict[str, float] = {}
    arguments = jnp.zeros(number if lines == "draws" else 4), jax.random.key(0)
    for _ in range(3 if number < 1000 else 1):
        jax.clear_caches()
        jax.eval_shape(planned, *arguments)
        for name, gradient in zip(("gradient", "by_hand"), gradients, strict=True):
            jax.clear_caches()
            began = time.process_time()
            jax.jit(gradient).trace(*arguments)
            seconds[name] = min(seconds.get(name, np.inf), time.process_time() - began)
    return Case(lambda: None, lambda count, seed: np.zeros((count, 1)), seconds)


# ---------------------------------------------------------------- a graph network on graphs with nodes left out at random

GRAPHS, NODES, EDGES, MESSAGES = 8, 8, 24, 3


def _graphs() -> tuple[Any, dict[str, Any]]:
    rng = np.random.default_rng(0)
    of_node = np.repeat(np.arange(GRAPHS), NODES)
    ends = rng.integers(NODES, size=(2, GRAPHS, EDGES)) + NODES * np.arange(GRAPHS)[:, None]
    senders, receivers = ends.reshape(2, -1)
    params = {
        "keep": _normal(1, UNITS, 1),
        "layers": [
            {"self": _normal(2 + i, UNITS, UNITS), "other": _normal(9 + i, UNITS, UNITS)} for i in range(MESSAGES)
        ],
        "out": _normal(17, UNITS, 1),
    }
    return (_normal(0, GRAPHS * NODES, UNITS), senders, receivers, of_node, _normal(18, GRAPHS)), params


def _per_graph(params: Any, graphs: Any, kept: jax.Array) -> jax.Array:
    """The squared error of each graph."""
    x, senders, receivers, of_node, targets = graphs
    x = x * kept[:, None]
    for layer in params["layers"]:
        received = jax.ops.segment_sum((x @ layer["other"])[senders], receivers, GRAPHS * NODES)
        x = jnp.tanh(x @ layer["self"] + 0.2 * received)
    return (jax.ops.segment_sum((x @ params["out"])[:, 0], of_node, GRAPHS) - targets) ** 2


def graph_network() -> Case:
    graphs, params = _graphs()

    def program(params: Any, key: jax.Array) -> jax.Array:
        kept = mcgrad.sample(key, mcgrad.Bernoulli(logits=(graphs[0] @ params["keep"])[:, 0]))
        return jnp.mean(_per_graph(params, graphs, kept))

    return _case(program, params)


def graph_network_by_hand() -> Case:
    graphs, params = _graphs()

    def surrogate(params: Any, key: jax.Array) -> jax.Array:
        logits = (graphs[0] @ params["keep"])[:, 0]
        kept = _drawn(key, logits)
        weight = unit(jax.ops.segment_sum(_log_prob(logits, kept), graphs[3], GRAPHS))
        return jnp.mean(_per_graph(params, graphs, kept) * weight)

    return case_by_hand(surrogate, params)


# ---------------------------------------------------------------- a language model that writes 128 tokens

LENGTH, WORDS, DEPTH, TEXTS = 128, 32, 2, 4


def _language_model() -> dict[str, Any]:
    return {"embed": _normal(1, WORDS, WIDTH), "place": _normal(2, LENGTH, WIDTH), "blocks": _blocks(DEPTH, 3)}


def _logits(params: Any, tokens: jax.Array) -> jax.Array:
    """Of all tokens, each given those before it."""
    before = jnp.concatenate([jnp.zeros_like(tokens[..., :1]), tokens[..., :-1]], axis=-1)
    mask = np.tril(np.ones((LENGTH, LENGTH), bool))
    return _through(params["blocks"], params["embed"][before] + params["place"], mask) @ params["embed"].T


def _empty_cache() -> Any:
    return [jnp.zeros((TEXTS, LENGTH, HEADS, 2 * WIDTH // HEADS)) for _ in range(DEPTH)]


def _next_logits(params: Any, cache: Any, token: jax.Array, place: jax.Array) -> tuple[Any, jax.Array]:
    """Of the next token, with the keys and values of those before it in a cache."""
    x, after = params["embed"][token] + params["place"][place], []
    for block, seen in zip(params["blocks"], cache, strict=True):
        made = (_normed(x, block["norm"]) @ block["in"]).reshape(TEXTS, HEADS, -1)
        query, new = made[..., : WIDTH // HEADS], made[..., WIDTH // HEADS :]
        seen = jax.lax.dynamic_update_slice(seen, new[:, None], (0, place, 0, 0))
        keys, values = jnp.split(seen, 2, axis=-1)
        scores = jnp.einsum("bhd,bkhd->bhk", query, keys) / np.sqrt(WIDTH // HEADS)
        scores = jnp.where(jnp.arange(LENGTH) <= place, scores, -1e9)
        mixed = jnp.einsum("bhk,bkhd->bhd", jax.nn.softmax(scores, axis=-1), values)
        x = x + mixed.reshape(x.shape) @ block["out"]
        x = x + jax.nn.gelu(_normed(x, block["norm"]) @ block["up"]) @ block["down"]
        after.append(seen)
    return after, x @ params["embed"].T


def _token_costs(tokens: jax.Array) -> jax.Array:
    """A cost for each token."""
    return jnp.cos(1.0 * tokens)


def _written(params: Any, key: jax.Array) -> jax.Array:
    def step(carry: Any, given: Any) -> tuple[Any, jax.Array]:
        (cache, token), (key, place) = carry, given
        cache, logits = _next_logits(params, cache, token, place)
        token = jax.random.categorical(key, logits)
        return (cache, token), token

    given = jax.random.split(key, LENGTH), jnp.arange(LENGTH)
    return jax.lax.scan(step, (_empty_cache(), jnp.zeros(TEXTS, int)), given)[1].T


def autoregressive() -> Case:
    def conditionals(tokens: jax.Array, params: Any) -> Any:
        return mcgrad.Categorical(logits=_logits(params, tokens))

    text = mcgrad.autoregressive(lambda key, params: _written(params, key), conditionals)

    def program(params: Any, key: jax.Array) -> jax.Array:
        return jnp.sum(_token_costs(mcgrad.sample(key, text(params)))) / TEXTS

    return _case(program, _language_model())


def autoregressive_by_hand() -> Case:
    """Decode once, then one pass over all tokens for their probabilities."""

    def surrogate(params: Any, key: jax.Array) -> jax.Array:
        tokens = _written(stop(params), key)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(_logits(params, tokens)), tokens[..., None], axis=-1)[..., 0]
        return jnp.sum(_token_costs(tokens) * unit(jnp.cumsum(log_prob, axis=-1))) / TEXTS

    return case_by_hand(surrogate, _language_model())


def token_by_token() -> Case:
    def program(params: Any, key: jax.Array) -> jax.Array:
        def step(carry: Any, given: Any) -> tuple[Any, jax.Array]:
            (cache, token), (key, place) = carry, given
            cache, logits = _next_logits(params, cache, token, place)
            token = mcgrad.sample(key, mcgrad.Categorical(logits=logits))
            return (cache, token), _token_costs(token)

        given = jax.random.split(key, LENGTH), jnp.arange(LENGTH)
        return jnp.sum(jax.lax.scan(step, (_empty_cache(), jnp.zeros(TEXTS, int)), given)[1]) / TEXTS

    return _case(program, _language_model())


def token_by_token_by_hand() -> Case:
    def surrogate(params: Any, key: jax.Array) -> jax.Array:
        def step(carry: Any, given: Any) -> tuple[Any, jax.Array]:
            (cache, token, log_weight), (key, place) = carry, given
            cache, logits = _next_logits(params, cache, token, place)
            token = jax.random.categorical(key, stop(logits))
            own = jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], axis=-1)[:, 0]
            log_weight = log_weight + own
            return (cache, token, log_weight), _token_costs(token) * unit(log_weight)

        start = _empty_cache(), jnp.zeros(TEXTS, int), jnp.zeros(TEXTS)
        given = jax.random.split(key, LENGTH), jnp.arange(LENGTH)
        return jnp.sum(jax.lax.scan(step, start, given)[1]) / TEXTS

    return case_by_hand(surrogate, _language_model())


BUILDERS = {
    fn.__name__: fn
    for fn in (
        transformer,
        transformer_by_hand,
        resnet,
        resnet_by_hand,
        stochastic_depth,
        stochastic_depth_by_hand,
        many_draws,
        many_draws_by_hand,
        planning,
        graph_network,
        graph_network_by_hand,
        autoregressive,
        autoregressive_by_hand,
        token_by_token,
        token_by_token_by_hand,
    )
}
