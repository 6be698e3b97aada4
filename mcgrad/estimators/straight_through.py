"""Biased estimators, labelled: discrete draws whose derivative is that of a relaxed draw, or of their mean."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient as stop
from jaxtyping import Array, ArrayLike, Float

from mcgrad._arguments import check_field, check_flag
from mcgrad._compat import Tracer
from mcgrad._types import PRNGKey, static_field
from mcgrad.distributions import HasMarginals, Relaxation, knows
from mcgrad.estimators.as_floats import in_floats, why_no_derivative
from mcgrad.estimators.relax import KEY_OF_RELAXATION
from mcgrad.program import Draw, Flow, LocalEstimator, Site
from mcgrad.program.estimator import OnJump
from mcgrad.program.surrogates import zero_with_first_derivative_of


@dataclasses.dataclass(frozen=True)
class _Biased(LocalEstimator):
    """Base: the draw in floating point, moved along a path that is not its own. One evaluation, first derivative."""

    flow: ClassVar[bool] = True
    biased: ClassVar[bool] = True
    _needs: ClassVar[tuple[str, ...]] = ("relaxation",)

    def __post_init__(self) -> None:
        temperature = getattr(self, "temperature", 1.0)
        if not isinstance(temperature, Tracer) and not (np.shape(temperature) == () and temperature > 0):
            raise ValueError(
                f"`mcgrad.{type(self).__name__}(temperature=...)` must be one number above zero, got {temperature!r}. Pass 1.0 "
                "or less."
            )

    def why_not(self, site: Site) -> str | None:
        if site.facts.knows.isdisjoint(self._needs):
            return (
                "the distribution has no relaxation; `mcgrad.Bernoulli` and `mcgrad.OneHotCategorical` have, and yours may, see "
                "`mcgrad.Distribution`"
            )
        return why_no_derivative(site)

    def drawn(self, dist: Any) -> Any:
        return in_floats(dist)

    def on_jump(self, *, certain: bool) -> OnJump:
        return "ignore"

    def represent(self, draw: Draw) -> Flow:
        x, key = draw.sample(), draw.key_beside(KEY_OF_RELAXATION)
        return Flow(draw.under_vmaps(type(self)._point, x, key=key, estimator=self))

    def _point(self, key: PRNGKey, dist: Any, x: Array) -> Array:
        """The draw `x`, or a relaxed one in its place, with a first derivative."""
        raise NotImplementedError

    def _relaxed(self, key: PRNGKey, dist: Any, x: Array, temperature: Any) -> Array:
        """A relaxed draw of temperature above zero, from the noise that made the draw `x`."""
        relaxation = dist.relaxation(key, x, True)  # moved with the parameters, the noise held
        return _mean_of(relaxation, relaxation.free / temperature).astype(x.dtype)


def _mean_of(relaxation: Relaxation, logits: Array) -> Array:
    """The mean of draws with these logits."""
    return jax.nn.softmax(logits, axis=-1) if relaxation.of_classes else jax.nn.sigmoid(logits)


def _moved(relaxation: Relaxation, mean: Array) -> Array:
    """How draws of this mean move with their logits: zero, with the derivative `(diag(p) - p p^T) d logits` at `p = mean`."""
    assert relaxation.logits is not None
    mean = stop(mean)
    own = mean * (relaxation.logits - stop(relaxation.logits))
    return own - mean * (jnp.sum(own, axis=-1, keepdims=True) if relaxation.of_classes else own)


@dataclasses.dataclass(frozen=True)
class StraightThrough(_Biased):
    r"""Straight-through: the draw `x`, with the derivative of its mean. **Biased**, except for costs that are linear in the draw.

        d E[f(x)] ~ f'(x) dp,    p = E[x]

    For `Bernoulli` and `OneHotCategorical`, `Independent` ones, and `Subset`, where `p` are the marginals (SIMPLE); draws are
    floats where it is named at the draw. One evaluation; the cost must be differentiable at zeros and ones. The first derivative
    only; a second one raises. No jump is warned of. `mcgrad.explain` labels it, `mcgrad.compare` measures its bias, and
    `mcgrad.Auto` never takes it.

    Raises:
        ValueError: where the program is planned, with the line of the draw: for integer draws, and for distributions that have no
            relaxation.
        NotImplementedError: for a second derivative.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.StraightThrough())
        >>> float(mcgrad.grad(loss)(0.0, jax.random.key(0)))
        0.75

    References:
        Bengio et al. 2013, section 4, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
        Computation", https://arxiv.org/abs/1308.3432; Ahmed et al. 2023, eq. 4 (subsets), "SIMPLE: A Gradient Estimator for
        k-Subset Sampling", https://arxiv.org/abs/2210.01941.
    """

    _needs: ClassVar[tuple[str, ...]] = ("relaxation", "marginals")

    def _point(self, key: PRNGKey, dist: Any, x: Array) -> Array:
        if knows(dist, HasMarginals):
            return x + zero_with_first_derivative_of(dist.marginals()).astype(x.dtype)
        relaxation = dist.relaxation(key, x, True)
        moved = _moved(relaxation, _mean_of(relaxation, relaxation.logits))
        return x + zero_with_first_derivative_of(moved).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class ReinMax(_Biased):
    r"""ReinMax: straight-through of second order (Heun's method). **Biased**, except for costs that are quadratic in the draw.

        d E[f(x)] ~ f'(x) [2 C((p_t + x) / 2) - 1/2 C(p)] d logits,    C(p) = diag(p) - p p^T

    where `p_t` is the mean at `logits / temperature`. Exact for quadratic costs at a temperature of one; at others it is
    biased even for linear costs, with less variance. For the rest see `mcgrad.StraightThrough`.

    Args:
        temperature: above zero; the paper takes one or a little more. May be a value that the program computes.

    Raises:
        ValueError, NotImplementedError: see `mcgrad.StraightThrough`.

    References:
        Liu et al. 2023, eq. 6 and theorem 3.1, "Bridging Discrete and Backpropagation: Straight-Through and Beyond",
        https://arxiv.org/abs/2304.08612.
    """

    temperature: Float[ArrayLike, ""] = 1.0

    def _point(self, key: PRNGKey, dist: Any, x: Array) -> Array:
        relaxation = dist.relaxation(key, x, True)
        middle = (_mean_of(relaxation, relaxation.logits / self.temperature) + x) / 2
        moved = 2 * _moved(relaxation, middle) - _moved(relaxation, _mean_of(relaxation, relaxation.logits)) / 2
        return x + zero_with_first_derivative_of(moved).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class GumbelSoftmax(_Biased):
    r"""Gumbel-softmax (Concrete): a relaxed draw in place of the discrete one. **Biased**; less so, and noisier, the colder it is.

        x_t = softmax((logits + Gumbel) / temperature)    (for bits, sigmoid((logits + Logistic) / temperature))

    With `hard=False` the cost is evaluated at `x_t`, and its **value is biased too**: costs must accept what lies between zero
    and one. With `hard=True` (straight-through Gumbel-softmax) it is evaluated at the draw, of which `x_t` is the relaxation,
    and moves as `x_t` does; this bias does not vanish with the temperature. For the rest see `mcgrad.StraightThrough`.

    Args:
        temperature: above zero. May be a value that the program computes, such as an annealed one.
        hard: whether the value is the draw itself.

    Raises:
        TypeError: where it is built, for a `hard` that is no bool.
        ValueError, NotImplementedError: see `mcgrad.StraightThrough`.

    References:
        Jang et al. 2017, eq. 2 and section 2.2, "Categorical Reparameterization with Gumbel-Softmax",
        https://arxiv.org/abs/1611.01144; Maddison et al. 2017, section 3, "The Concrete Distribution",
        https://arxiv.org/abs/1611.00712.
    """

    temperature: Float[ArrayLike, ""]
    hard: bool = static_field(default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag(self.hard, "GumbelSoftmax(hard=...)")

    def _point(self, key: PRNGKey, dist: Any, x: Array) -> Array:
        relaxed = self._relaxed(key, dist, x, self.temperature)
        return (x if self.hard else stop(relaxed)) + zero_with_first_derivative_of(relaxed)


@dataclasses.dataclass(frozen=True)
class GumbelRao(_Biased):
    r"""Gumbel-Rao: straight-through Gumbel-softmax, averaged over the noise that gives the same draw. **Biased** as that is.

        d E[f(x)] ~ f'(x) 1/K sum_k d softmax(z_k / temperature),    z_k ~ p(z | x)

    The mean of `GumbelSoftmax(temperature, hard=True)` with less variance, at one evaluation of the cost. The `z_k` move
    with the logits, their noise held. For the rest see `mcgrad.StraightThrough`.

    Args:
        temperature: above zero. May be a value that the program computes.
        num_samples: `K`.

    Raises:
        ValueError: where it is built, for a number of samples that cannot be; and see `mcgrad.StraightThrough`.
        NotImplementedError: see `mcgrad.StraightThrough`.

    References:
        Paulus et al. 2021, eq. 9 and 13, "Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient Estimator",
        https://arxiv.org/abs/2010.04838.
    """

    temperature: Float[ArrayLike, ""]
    num_samples: int = static_field(default=10)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_field(self, "num_samples", 1)

    def _point(self, key: PRNGKey, dist: Any, x: Array) -> Array:
        keys = jax.random.split(key, self.num_samples)
        relaxed = jax.vmap(lambda key: self._relaxed(key, dist, x, self.temperature))(keys)
        return x + zero_with_first_derivative_of(jnp.mean(relaxed, axis=0))
