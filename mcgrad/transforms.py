"""The transforms: from a program to unbiased estimates of its expectation and of its derivatives."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mcgrad._arguments import (
    check_chunks,
    check_flag,
    find_key,
    fold_in,
    keyed_by,
    name_of,
    sample_key,
    split,
)
from mcgrad._eager import count_call
from mcgrad._modules import differentiate, partition, pure
from mcgrad._spread import check_sharding, not_closed_over, spread_over
from mcgrad.distributions.half_precision import in_single
from mcgrad.estimators.auto import Auto
from mcgrad.planned import plan_of
from mcgrad.program import Estimator
from mcgrad.program.explain import Explanation
from mcgrad.program.explain import describe as explanation_of
from mcgrad.program.point_sets import PointSet, check_points
from mcgrad.program.site import Site
from mcgrad.sample import check_estimator

_SAMPLES = "mcgrad_samples"  # the axis that `num_samples` maps over


def expectation(
    fn: Callable[..., Any],
    *,
    estimator: Estimator | None = None,
    num_samples: int = 1,
    chunk_size: int | None = None,
    points: PointSet = "independent",
    sharding: Any = None,
    has_aux: bool = False,
    key_argname: str | None = None,
) -> Callable[..., Any]:
    """An unbiased estimate of a stochastic program's expectation, differentiable by JAX itself.

    `expectation(fn)` has the signature of `fn`. Its value is an unbiased estimate of `E[fn]`, and its derivatives,
    taken by `jax.grad`, `jax.jvp`, `jax.jacrev`, `jax.hessian`, ..., are unbiased estimates of those of `E[fn]`, to
    the order that the estimators claim. What is made of it must be linear in it: the square of an estimate is no
    unbiased estimate of a square, nor is its derivative.

    Args:
        fn: a program: an ordinary JAX function that makes its random choices with `mcgrad.sample`. Its argument named
            `key`, `rng`, `rng_key` or `rngs`, positional or keyword, is the randomness: a key of either style, a pytree with
            keys (streams by name, Flax NNX's `Rngs`) or Haiku's `PRNGSequence`. It returns floating-point costs, a pytree of
            arrays.
        estimator: for the draws that name none; by default `mcgrad.Auto()`.
        num_samples: how many runs of the program are averaged, each on its own key, split from the one given. Score
            estimators then use the mean of the other runs as their baseline (leave-one-out).
        chunk_size: how many samples run at once; must divide `num_samples`. Chunks run one after another and are recomputed
            in the backward pass, so that memory, also in reverse mode, is that of one chunk plus one value per chunk (all
            `aux` is kept, however). The leave-one-out baseline is then the mean of the other runs **of the same chunk**;
            with a chunk size of one there is none. By default all samples run at once.
        points: how the samples (of one chunk) are spread over the values of each draw that does not say so itself, by its
            quantiles: `"independent"`; `"antithetic"`, pairs of opposite quantiles; `"stratified"`, a Latin hypercube;
            `"lattice"`, randomized lattices of a few entries each; `"sobol"`, scrambled, for a power of two of samples. Each sample
            by itself is distributed as always, so that nothing is biased. Samples depend on each other, however: **the
            leave-one-out baseline is the mean over the other antithetic pairs, and with the last three there is none.** Entries
            of a draw along a `vmap` of the program, steps of a loop and other draws are spread by themselves. For distributions
            of mcgrad with an `icdf`, multivariate normal ones, yours with an `icdf`, and discrete ones of other libraries with
            one; estimators that draw several points of their own draw them as always.
        sharding: spreads the samples over the devices of a mesh: a `jax.sharding.PartitionSpec` of one entry, such as
            `jax.P("data")`, for the mesh that `jax.set_mesh` has set, or a `jax.sharding.NamedSharding`. Each device runs its own
            samples, in chunks of `chunk_size`, and only means meet. The keys are those of one device, so the result is the same
            up to the order of sums. Inside the program the mesh axes are manual, as in `jax.shard_map(check_vma=False)`.
        has_aux: whether `fn` returns `(costs, aux)`. `aux` is returned as it is, from one plain run of the program, with a
            leading axis of size `num_samples` if that is above one.
        key_argname: the name of the argument that is the randomness, where it is another.

    Returns:
        A function of the arguments of `fn`.

    Raises:
        TypeError: for an argument `key` that is no key, or a program that returns anything but floating-point arrays.
        ValueError: if an estimator would be wrong at a draw; the message has the line of the draw. Also if `chunk_size` does
            not divide `num_samples`, or `sharding` is of another mesh, of several axes, or over devices that do not divide it.
        NotImplementedError: if a draw is inside something that cannot be transformed; the message has its line.

    Example:
        >>> import jax, mcgrad
        >>> def loss(loc, key):
        ...     return mcgrad.sample(key, mcgrad.Normal(loc, 1.0)) ** 2
        >>> float(jax.hessian(mcgrad.expectation(loss))(0.5, jax.random.key(0)))
        2.0

    References:
        Schulman et al. 2015, theorem 1; Foerster et al. 2018, eq. 5; Lew et al. 2023, section 4.
    """
    num_samples, chunk_size = _check_options(estimator, num_samples, chunk_size, has_aux)
    size = chunk_size or num_samples
    check_sharding(sharding, "expectation")
    check_points(points, size, sharding)

    @functools.wraps(fn)
    def surrogate(*args: Any, **kwargs: Any) -> Any:
        if (found := pure(fn, args, kwargs, has_aux)) is None:
            return of_pure(fn, args, kwargs, has_aux)
        value, (aux, changed) = of_pure(found.fn, found.args, found.kwargs, True)
        found.update(changed, several=num_samples > 1)
        return (value, aux) if has_aux else value

    def of_pure(fn: Callable[..., Any], args: Any, kwargs: Any, has_aux: bool) -> Any:
        if num_samples == 1 and sharding is None:
            key, with_key = find_key(fn, args, kwargs, "expectation", key_argname)
            count_call(fn, key)
            _, run = plan_of(fn, *with_key(key), estimator, has_aux)
            return run()
        key, with_key = sample_key(fn, args, kwargs, "expectation", key_argname)
        count_call(fn, key)
        spread = spread_over(sharding, num_samples, chunk_size, "expectation")
        names = (_SAMPLES, *(spread.axes if spread is not None and size == num_samples else ()))
        replicates = (names, size) if size > 1 else None
        put_aux: list[Callable[..., Any]] = []

        # In float32, the derivatives of 16 bits of all chunks are added up without getting stuck.
        def narrow(x: Any, own: Any) -> Any:
            return own if getattr(x, "dtype", None) == getattr(own, "dtype", None) else x.astype(own.dtype)

        def several(keys: jax.Array, wide: Any, with_key: Any) -> tuple[Any, Any]:
            def one(key: jax.Array) -> tuple[Any, Any]:
                _, run = plan_of(fn, *jax.tree.map(narrow, wide, with_key(key)), estimator, has_aux, key)
                costs, aux = run(replicates, points) if has_aux else (run(replicates, points), ())
                arrays, put = partition(aux)
                put_aux.append(put)
                return costs, arrays

            costs, aux = jax.vmap(one, axis_name=_SAMPLES)(keys)
            return _mean(costs), aux

        def in_order(args: Any, kwargs: Any, first: jax.Array, num: int) -> tuple[Any, Any]:
            """Samples `first` to `first + num`, in chunks."""
            # Keys of chunks are made one by one with `fold_in`, since an array of all of them would grow with `num_samples`;
            # for JAX's default keys they equal those of `jax.random.split`. So are those of each device.
            key, with_key = sample_key(fn, args, kwargs, "expectation", key_argname)
            wide = in_single((args, kwargs))

            def numbered(start: jax.Array) -> tuple[Any, Any]:
                numbers = start + jnp.arange(min(size, num))
                return several(jax.vmap(fold_in, (None, 0))(key, numbers), wide, with_key)

            if num <= size:
                return numbered(first)
            chunk = jax.checkpoint(numbered, prevent_cse=False)
            values, aux = jax.lax.map(chunk, first + jnp.arange(0, num, size))
            return _mean(values), jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), aux)

        if spread is not None:
            own = num_samples // spread.num_devices
            arrays, put = not_closed_over((args, kwargs))
            starts = jnp.arange(0, num_samples, own)
            value, aux = spread.run(lambda first, *xs: in_order(*put(xs), first[0], own), starts, arrays)
        elif size == num_samples:
            value, aux = several(split(key, num_samples), in_single((args, kwargs)), with_key)
        else:
            value, aux = in_order(args, kwargs, jnp.asarray(0), num_samples)
        return (value, put_aux[-1](aux)) if has_aux else value

    return surrogate


def _mean(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), tree)


def grad(
    fn: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    estimator: Estimator | None = None,
    num_samples: int = 1,
    chunk_size: int | None = None,
    points: PointSet = "independent",
    sharding: Any = None,
    has_aux: bool = False,
    key_argname: str | None = None,
) -> Callable[..., Any]:
    """An unbiased estimate of the gradient of a program's expectation: `jax.grad(mcgrad.expectation(fn))`.

    Args:
        fn: a program that returns a scalar; see `mcgrad.expectation`.
        argnums: which arguments to differentiate in, as in `jax.grad`.
        estimator, num_samples, chunk_size, points, sharding, has_aux, key_argname: see `mcgrad.expectation`.

    Returns:
        A function of the arguments of `fn` that returns the gradient, or `(gradient, aux)`.

    Raises:
        TypeError: for a program that does not return a scalar; and see `mcgrad.expectation`.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     return (mcgrad.sample(key, mcgrad.Bernoulli(logits=logits)) - 0.4) ** 2
        >>> round(float(mcgrad.grad(loss)(0.0, jax.random.key(0))), 4)
        0.05
    """
    options = {
        "estimator": estimator,
        "num_samples": num_samples,
        "chunk_size": chunk_size,
        "points": points,
        "sharding": sharding,
    }
    surrogate = _to_differentiate("grad", fn, argnums, options, has_aux, key_argname)
    return differentiate("grad", surrogate, argnums, has_aux)


def grad_of_sample(
    fn: Callable[..., Any], argnums: int | Sequence[int], estimator: Estimator | None, key: jax.Array
) -> Callable[..., Any]:
    """`grad` for the key of one of several samples, of which every draw must make its own key."""
    _check_options(estimator, 1, None, False)

    @functools.wraps(fn)
    def surrogate(*args: Any, **kwargs: Any) -> Any:
        _, run = plan_of(fn, args, kwargs, estimator, False, key)
        return run()

    return differentiate("grad", _scalar(surrogate, fn, False), argnums, has_aux=False)


def value_and_grad(
    fn: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    estimator: Estimator | None = None,
    num_samples: int = 1,
    chunk_size: int | None = None,
    points: PointSet = "independent",
    sharding: Any = None,
    has_aux: bool = False,
    key_argname: str | None = None,
) -> Callable[..., Any]:
    """Unbiased estimates of a program's expectation and its gradient: `jax.value_and_grad(mcgrad.expectation(fn))`.

    Args, Returns and Raises are those of `mcgrad.grad`, with `(value, gradient)` or `((value, aux), gradient)` returned.

    Example:
        >>> import jax, mcgrad
        >>> def loss(loc, key):
        ...     return 2.0 * mcgrad.sample(key, mcgrad.Normal(loc, 1.0))
        >>> value, gradient = mcgrad.value_and_grad(loss)(0.0, jax.random.key(0))
        >>> float(gradient)
        2.0
    """
    options = {
        "estimator": estimator,
        "num_samples": num_samples,
        "chunk_size": chunk_size,
        "points": points,
        "sharding": sharding,
    }
    surrogate = _to_differentiate("value_and_grad", fn, argnums, options, has_aux, key_argname)
    return differentiate("value_and_grad", surrogate, argnums, has_aux)


def explain(
    fn: Callable[..., Any], *, estimator: Estimator | None = None, has_aux: bool = False, key_argname: str | None = None
) -> Callable[..., Explanation]:
    """What mcgrad finds in a program: draws, costs, which draws each cost is credited to, and what mixed an axis.

    Args:
        fn, estimator, has_aux, key_argname: see `mcgrad.expectation`.

    Returns:
        A function of the arguments of `fn` that runs nothing and returns an `Explanation`, to print or to inspect; `draw(path)`
        writes it as a picture.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     return (1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), name="b") - 0.4).sum()
        >>> report = mcgrad.explain(loss)(jax.numpy.zeros(3), jax.random.key(0))
        >>> report.costs[0].credits[0].axes
        ('same',)
    """
    fn = keyed_by(fn, key_argname)

    _check_options(estimator, 1, None, has_aux)

    @functools.wraps(fn)
    def explained(*args: Any, **kwargs: Any) -> Explanation:
        key, with_key = find_key(fn, args, kwargs, "explain")
        given = with_key(key)
        # Traced arguments, so that no parameter looks like a known constant.
        arrays = jax.tree.map(lambda leaf: leaf if isinstance(leaf, (jax.Array, float)) else None, given)
        found: list[Explanation] = []

        def of_arrays(arrays: Any) -> None:
            args, kwargs = jax.tree.map(
                lambda own, array: own if array is None else array, given, arrays, is_leaf=lambda leaf: leaf is None
            )
            plan, _ = plan_of(fn, args, kwargs, estimator, has_aux)

            def with_one_more(site: Site, chosen: Estimator) -> str:
                asked = site.estimator or estimator or Auto()
                return asked.with_one_more(site, chosen) if isinstance(asked, Auto) else ""

            found.append(explanation_of(plan, with_one_more))

        jax.eval_shape(of_arrays, arrays)
        return found[0]

    return explained


def _to_differentiate(
    where: str,
    fn: Callable[..., Any],
    argnums: Any,
    options: dict[str, Any],
    has_aux: Any,
    key_argname: Any,
) -> Callable[..., Any]:
    """The expectation, of which JAX takes the gradient."""
    if isinstance(argnums, Estimator):
        raise TypeError(
            f"`mcgrad.{where}(argnums=...)` must be an int or several, got {type(argnums).__name__}. Pass the estimator by "
            "its name, `estimator=`."
        )
    surrogate = expectation(fn, **options, has_aux=has_aux, key_argname=key_argname)
    return _scalar(surrogate, fn, has_aux)


def _scalar(surrogate: Callable[..., Any], fn: Callable[..., Any], has_aux: bool) -> Callable[..., Any]:
    @functools.wraps(fn)
    def checked(*args: Any, **kwargs: Any) -> Any:
        out = surrogate(*args, **kwargs)
        value = out[0] if has_aux else out
        single = jax.tree_util.all_leaves([value])
        if not single or jnp.shape(value) != ():
            got = f"an array of shape {jnp.shape(value)}" if single else "a pytree"
            raise TypeError(
                f"A gradient needs a program that returns a scalar, got {got} from `{name_of(fn)}`. Take a mean or a sum, or "
                "use `jax.jacrev(mcgrad.expectation(program))`."
            )
        return out

    return checked


def _check_options(estimator: Any, num_samples: Any, chunk_size: Any, has_aux: Any) -> tuple[int, int | None]:
    check_estimator(estimator, "expectation")
    check_flag(has_aux, "expectation(has_aux=...)")
    return check_chunks(num_samples, chunk_size, "expectation")
