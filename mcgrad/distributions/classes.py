"""The bases of distributions of chances: the probability of a success, or those of classes, by `logits` or `probs`."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from mcgrad import _compat
from mcgrad._debug import check_when_run
from mcgrad._types import static_field
from mcgrad.distributions.base import Distribution
from mcgrad.distributions.checks import LOG_ODDS, PROBABILITY, Domain, check_one_of

LOGITS = Domain(
    "be finite or -inf",
    lambda v: v < np.inf,
    "Pass unnormalized log probabilities; `-inf` excludes a class.",
    event_ndim=1,
)

_PROBS = Domain(
    "be at least zero and finite",
    lambda v: (v >= 0) & np.isfinite(v),
    "Pass probabilities, or unconstrained values as `logits=`.",
    event_ndim=1,
)


def check_possible(law: str, logits: Any, k: int) -> None:
    """Refuse concrete logits of which fewer than `k` are possible."""
    if isinstance(logits, _compat.Tracer):
        return check_when_run(lambda values: check_possible(law, values, k), logits)
    fewest = int(np.min((np.asarray(logits) > -np.inf).sum(-1), initial=k))
    if fewest < k:
        raise ValueError(
            f"`mcgrad.{law}(logits=...)` must leave at least k = {k} possible, got a row with {fewest} above -inf. Keep "
            "more logits finite, or lower `k`."
        )


# How far a sum of probabilities may be from one: more than rounding to bfloat16 or float16 on the way here can do to
# it, less than any mistake that is worth a message.
_SUM_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chances(Distribution):
    """Base of distributions with a probability `p` of a success, by its log odds or by itself."""

    logits: Float[ArrayLike, "*batch"] | None = None
    probs: Float[ArrayLike, "*batch"] | None = None

    domains: ClassVar = {"logits": LOG_ODDS, "probs": PROBABILITY}
    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_one_of(self.law, logits=self.logits, probs=self.probs)
        super().__post_init__()

    @property
    def _given(self) -> Array:
        return jnp.asarray(self.logits if self.probs is None else self.probs)

    def _success(self, given: Array) -> Array:
        """`p`."""
        return jax.nn.sigmoid(given) if self.probs is None else given

    def _failure(self, given: Array) -> Array:
        """`1 - p`."""
        return jax.nn.sigmoid(-given) if self.probs is None else 1 - given

    def _is_sure(self, given: Array) -> Array:
        """Whether all trials come out alike."""
        return jnp.isinf(given) if self.probs is None else (given <= 0) | (given >= 1)

    def _log_odds(self, given: Array) -> Array:
        return given if self.probs is None else jnp.log(given) - jnp.log1p(-given)

    def _log_success(self, given: Array) -> Array:
        """`log(p)`."""
        return jax.nn.log_sigmoid(given) if self.probs is None else jnp.log(given)

    def _log_failure(self, given: Array) -> Array:
        """`log(1 - p)`."""
        return jax.nn.log_sigmoid(-given) if self.probs is None else jnp.log1p(-given)


def set_dtype_of_draws(dist: Any) -> None:
    """Make the `dtype` of the draws of bits one of JAX; refuses one that is not of numbers."""
    object.__setattr__(dist, "dtype", jax.dtypes.canonicalize_dtype(dist.dtype))
    if not jnp.issubdtype(dist.dtype, jnp.number):
        raise TypeError(
            f"`mcgrad.{dist.law}(dtype=...)` must be of numbers, got {dist.dtype}. Pass `jnp.float32`, or compare draws with 1."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bits(Chances):
    """Base of distributions of zeros and ones, which are integers unless another `dtype` is given."""

    dtype: Any = static_field(default=jnp.int32)

    def __post_init__(self) -> None:
        super().__post_init__()
        set_dtype_of_draws(self)

    def in_floats(self) -> Bits:
        """This distribution, with draws of the floating dtype of its parameters."""
        return dataclasses.replace(self, dtype=jnp.result_type(self._given))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes(Chances):
    """Base of distributions with the probabilities of `n` classes along their last axis."""

    domains: ClassVar = {"logits": LOGITS, "probs": _PROBS}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_classes == 0:
            raise ValueError(
                f"`mcgrad.{self.law}(...)` must have at least one class, got shape {jnp.shape(self._given)}. "
                "The last axis is that of the classes."
            )
        if isinstance(self._given, _compat.Tracer):
            return
        if self.probs is None:
            if not (np.asarray(self.logits) > -np.inf).any(-1).all():
                raise ValueError(
                    f"`mcgrad.{self.law}(logits=...)` must leave at least one class possible, got a row of -inf only. "
                    "Keep one logit of each row finite."
                )
        else:
            total = np.asarray(self.probs).astype(np.float64).sum(-1)
            if (np.abs(total - 1) > _SUM_TOLERANCE).any():
                worst = total.flat[np.argmax(np.abs(total - 1))]
                raise ValueError(
                    f"`mcgrad.{self.law}(probs=...)` must sum to 1 along the last axis, got a sum of {worst.item()!r}. "
                    "Divide by the sum, or pass `logits=jnp.log(weights)`."
                )

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        given: Any = self.logits if self.probs is None else self.probs
        return jnp.shape(given)[-1]

    def _normalized(self) -> Array:
        if self.probs is None:
            return jax.nn.softmax(self._given, axis=-1)
        return self._given / jnp.sum(self._given, axis=-1, keepdims=True)
