"""Distributions of sequences: entries drawn one after another, their log densities computed in one pass over all."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad import _compat
from mcgrad._arguments import describe
from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.base import Distribution
from mcgrad.distributions.half_precision import widened
from mcgrad.distributions.wrappers.base import as_arrays, of_whole
from mcgrad.distributions.wrappers.foreign import as_distribution


@dataclasses.dataclass(frozen=True, init=False)
class Sequential(Distribution):
    """Base of the classes that `autoregressive` makes. Its instances hold the parameters.

    Attributes:
        params: the parameters, each any pytree.
    """

    params: tuple[Any, ...]

    rounds_at_the_end: ClassVar[bool] = False  # functions get the parameters that were given
    functions: ClassVar[tuple[Callable[..., Any], Callable[..., Any]]]

    def __init__(self, *params: Any) -> None:
        # Arrays once, so that a draw and its `conditionals` are seen to have the same ones.
        object.__setattr__(self, "params", jax.tree.map(jnp.asarray, as_arrays(params)))

    @property
    def law(self) -> str:
        """The name of the user's function."""
        fn = self.functions[0]
        return f"autoregressive({getattr(fn, '__name__', type(fn).__name__)})"

    def sample(self, key: PRNGKey) -> Array:
        """One draw, held fixed, as the sampler makes it."""
        return jax.lax.stop_gradient(self.functions[0](key, *jax.lax.stop_gradient(self.params)))

    def log_prob(self, x: Array) -> Array:
        """The log density of whole sequences, the sum over their entries."""
        return jnp.sum(self.log_prob_of_entries(x), axis=-1)

    def log_prob_of_entries(self, x: Array) -> Array:
        """The log density of each entry given those before it, of shape `[*batch, length]`."""
        return widened(as_distribution(self.functions[1](x, *self.params))).log_prob(x)

    def conditionals(self, x: Array) -> Any:
        """The distribution of each entry of `x` given those before it: what the function `conditionals` returns.

        For a draw of this very distribution, the score is taken of these values, and no second pass is made: costs of the
        logits share it. What is made of entry `t` of the result is credited with the entries before `t` only, also where the
        distribution is another than the one drawn from, such as that of a reference policy.
        """
        draw, batch, _ = self._shapes
        if jnp.shape(x) != draw.shape:
            raise ValueError(
                f"`{self.law}.conditionals(x)` must get sequences of shape {draw.shape}, as its draws have, got shape "
                f"{jnp.shape(x)}. Use `jax.vmap` for more of them."
            )
        x = jnp.asarray(x)
        (seen,) = history_p.bind(x)
        leaves, tree = jax.tree.flatten(self.functions[1](seen, *self.params))
        own, own_tree = jax.tree.flatten(self)
        found = conditionals_p.bind(
            x, *map(jnp.asarray, (*own, *leaves)), num_own=len(own), own_tree=own_tree, tree=tree, levels=()
        )
        return jax.tree.unflatten(tree, found)

    @functools.cached_property
    def _shapes(self) -> tuple[jax.ShapeDtypeStruct, Shape, Shape]:
        """A draw; the shape of its entries, the last axis being that along which they depend; the shape of one entry."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        draw = jax.eval_shape(self.functions[0], key, *self.params)
        if not hasattr(draw, "shape") or draw.ndim == 0:
            raise TypeError(
                f"`mcgrad.autoregressive(sampler=...)` must return one array, of shape [*batch, length, *event], got "
                f"{describe(draw)}. Leave out what else the decoder returns: `conditionals(x)` gives what costs need."
            )
        found: list[tuple[Shape, Shape]] = []

        def shapes(x: Array, params: tuple[Any, ...]) -> tuple[()]:
            dist = as_distribution(self.functions[1](x, *params))
            found.append((tuple(dist.batch_shape), tuple(dist.event_shape)))
            return ()

        jax.eval_shape(shapes, draw, self.params)
        ((entries, event),) = found
        if not entries or (*entries, *event) != draw.shape:
            raise ValueError(
                "`mcgrad.autoregressive(conditionals=...)` must return the distribution of each entry of a draw, with batch "
                f"shape [*batch, length], got batch shape {entries} and event shape {event} for draws of shape {draw.shape}. "
                "The last batch axis is that along which entries are drawn one after another."
            )
        return draw, entries, event

    @property
    def batch_shape(self) -> Shape:
        """Shape of independent sequences."""
        return self._shapes[1][:-1]

    @property
    def event_shape(self) -> Shape:
        """Shape of one sequence."""
        _, entries, event = self._shapes
        return (entries[-1], *event)

    @property
    def event_ndim(self) -> int:
        """Number of event axes."""
        return len(self.event_shape)

    @property
    def discrete(self) -> bool:
        """Whether entries are not floating."""
        return not jnp.issubdtype(self._shapes[0].dtype, jnp.floating)


@dataclasses.dataclass(frozen=True)
class Entries(Distribution):
    """A distribution of sequences whose entries are draws of their own, each given those before it (`causal`).

    Attributes:
        sequences: the distribution of sequences.
    """

    sequences: Sequential

    rounds_at_the_end: ClassVar[bool] = False
    causal: ClassVar[bool] = True

    @property
    def law(self) -> str:
        return self.sequences.law

    @property
    def batch_shape(self) -> Shape:
        """Shape of all entries; each depends on those before it along the last axis."""
        return self.sequences._shapes[1]

    @property
    def event_shape(self) -> Shape:
        """Shape of one entry."""
        return self.sequences._shapes[2]

    @property
    def event_ndim(self) -> int:
        """Number of event axes of one entry."""
        return len(self.event_shape)

    @property
    def discrete(self) -> bool:
        """Whether entries are not floating."""
        return self.sequences.discrete

    def sample(self, key: PRNGKey) -> Array:
        return self.sequences.sample(key)

    def log_prob(self, x: Array) -> Array:
        return self.sequences.log_prob_of_entries(x)


def by_entries(dist: Any) -> Any:
    """A distribution of sequences with its entries as draws of their own; any other as it is."""
    return Entries(dist) if isinstance(dist, Sequential) else dist


def autoregressive(sampler: Callable[..., Array], conditionals: Callable[..., Any]) -> type[Sequential]:
    r"""A class of distributions of sequences: drawn entry by entry, credited by one pass over the whole sequence.

        log p(x) = sum_t log p(x_t | x_1, ..., x_{t-1})

    `sampler` makes a sequence in any way, for a language model by decoding in a `scan` with a cache of keys and values; it is
    never differentiated. `conditionals` makes the distributions of all entries at once, as in training: the parallel,
    teacher-forced pass of a transformer. Instances take the parameters, `Text(*params)`:

        Text = mcgrad.autoregressive(decode, logits_of_all)

        def loss(params, prompt, key):
            text = Text(params, prompt)
            tokens = mcgrad.sample(key, text)
            divergence = kl(text.conditionals(tokens), Text(reference, prompt).conditionals(tokens))  # [length]
            return jnp.sum(divergence) - reward(tokens)

    Each entry is a draw that depends on those before it, so credit is that of a draw in a `scan`: a cost that reads
    `tokens[:t]`, or entry `t` of `conditionals(tokens)`, is credited with the entries before `t` only. All that reads the draw is
    credited, since the draw comes first and its density later: there are no tokens beside it that a cost could read unseen.
    **If the score is all that is needed, one pass is made**, for the score and for costs of `conditionals(tokens)` together,
    where the draw stands in no loop and the two functions close over nothing that is traced; otherwise one for each.

    Unbiased, by `mcgrad.Score` (also by default) and `mcgrad.ImportanceSampling`, whose proposal may be another
    distribution of sequences (an old policy); to every order. Other estimators are refused. A `baseline` broadcasts to
    `[*batch, length]`, and must not depend on the draw.

    **The two functions must be of the same distribution, and entry `t` of `conditionals(x)` must depend on `x[..., :t]`
    only**: logits shifted by one, a mask that lets a token see itself, or a temperature in one of the two are biased silently.
    `mcgrad.check_distribution` tries both.

    Args:
        sampler: `sampler(key, *params)`, one array `[*batch, length, *event]`; sequences of a batch must be independent.
        conditionals: `conditionals(x, *params)`, a distribution of batch shape `[*batch, length]`, of mcgrad or another library:
            for tokens `mcgrad.Categorical(logits=logits)`. Tokens that are forbidden have a logit of `-inf`; after the end of
            a text, all but one.

    Returns:
        A class of distributions, of batch shape `[*batch]` and event shape `[length, *event]`. It is a pytree, whose leaves are
        those of the parameters. Beside the methods of a distribution it has `conditionals(x)`.

    Raises:
        TypeError: if what is passed is no function; and, when an instance is used, if draws are not one array.
        ValueError: when an instance is used, if the two functions do not fit.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def decode(key, table):  # the first token follows token 0
        ...     def step(token, key):
        ...         token = jax.random.categorical(key, table[token])
        ...         return token, token
        ...     return jax.lax.scan(step, jnp.zeros((), int), jax.random.split(key, 5))[1]
        >>> def all_at_once(tokens, table):
        ...     return mcgrad.Categorical(logits=table[jnp.concatenate([jnp.zeros(1, int), tokens[:-1]])])
        >>> Chain = mcgrad.autoregressive(decode, all_at_once)
        >>> def loss(table, key):
        ...     return jnp.mean(mcgrad.sample(key, Chain(table)) == 2)
        >>> mcgrad.grad(loss)(jnp.zeros((3, 3)), jax.random.key(0)).shape
        (3, 3)

    References:
        Schulman et al. 2015, theorem 1 (credit), https://arxiv.org/abs/1506.05254.
    """
    for name, fn in {"sampler": sampler, "conditionals": conditionals}.items():
        if not callable(fn):
            arguments = "key, *params" if name == "sampler" else "x, *params"
            raise TypeError(
                f"`mcgrad.autoregressive({name}=...)` must be a function, got {fn!r}. Pass `lambda {arguments}: ...`."
            )
    namespace = {
        "__doc__": "A distribution of sequences, made of plain functions.",
        "functions": (of_whole(sampler), of_whole(conditionals)),
    }
    name = getattr(sampler, "__name__", "functions")
    return type(f"autoregressive({name})", (Sequential,), namespace)


# `conditionals(x)` in the program: `history` marks the sequence as its function reads it, `conditionals` what the function returns.
# Between the two, attention may mix all entries; what comes out is known to depend on earlier ones only.


def _identity(*operands: Array, **_: Any) -> list[Array]:
    return list(operands)


def _results(*operands: Any, num_own: int, **_: Any) -> list[Any]:
    return list(operands[1 + num_own :])


def _batch(operands: Sequence[Array], axes: Sequence[int | None], *, num_own: int, levels: Any, **params: Any) -> Any:
    axes = list(axes)
    operands = list(operands)
    for i, axis in enumerate(axes):
        if (i == 0 or i > num_own) and axis:
            operands[i], axes[i] = jnp.moveaxis(operands[i], axis, 0), 0
    outs = conditionals_p.bind(*operands, num_own=num_own, levels=(*levels, tuple(axes)), **params)
    return outs, axes[1 + num_own :]


def _jvp(primals: Sequence[Array], tangents: Sequence[Array | None], **params: Any) -> Any:
    moving = _results(*tangents, **params)
    outs = conditionals_p.bind(*primals, **params)
    return outs, None if all(t is None for t in moving) else moving


history_p = _compat.new_primitive(
    "mcgrad_history",
    run=_identity,
    batch=lambda operands, axes: (history_p.bind(*operands), axes),
    jvp=lambda primals, tangents: (history_p.bind(*primals), None if tangents[0] is None else list(tangents)),
)
conditionals_p = _compat.new_primitive("mcgrad_conditionals", run=_results, batch=_batch, jvp=_jvp)
