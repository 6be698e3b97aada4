"""The protocol of distributions that sites and estimators use, and the base class of those of mcgrad."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, TypeGuard, TypeVar

import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._types import PRNGKey, PyTree, Shape
from mcgrad.distributions.checks import Domain, as_parameter, check_domain, check_positional, check_shapes, common_dtype
from mcgrad.distributions.derivatives.weak_derivative import Coupling, WeakDerivative
from mcgrad.distributions.half_precision import compute_in_single
from mcgrad.distributions.not_a_number import keep_nan


class Relaxation(NamedTuple):
    """Continuous draws `z` that a draw `x = H(z)` of a discrete distribution comes from, for all entries of the batch.

    `E[c(free)]` and `E[w c(given)]`, with `w = p_theta(x) / stop(p_theta(x))`, are equal as functions of the parameters.

    Attributes:
        free: a draw of `z` whose `H(z)` is the draw, moved by the parameters as one that is free, its noise held.
        given: a draw of `z` given the draw, moved by the parameters, the draw and its noise held.
        log_prob: log probability of the draw, of the batch shape; without derivative where `z` has none.
        logits: where `z` is centered: log odds, or log probabilities. `mcgrad.StraightThrough` and the like need them.
        of_classes: whether the last axis of `z` is that of the classes, one of which is drawn.
    """

    free: Array
    given: Array
    log_prob: Array
    logits: Array | None = None
    of_classes: bool = False


class HasLogProb(Protocol):
    """Knows its density, as score functions and importance weights need it."""

    def log_prob(self, x: Array, /) -> Array:
        """Log density, or log probability, of a value `[*batch, *event]`, of the batch shape; `-inf` outside of the support."""


class HasProb(Protocol):
    """Knows its probabilities with finite derivatives also where they are zero."""

    def prob(self, x: Array, /) -> Array:
        """Probability of a value of a discrete distribution, of the batch shape; its derivative is finite also where it is zero."""


class HasCdf(Protocol):
    """Knows its distribution function."""

    def cdf(self, x: Array, /) -> Array:
        """The distribution function, `P(X <= x)`, elementwise."""


class HasSurvival(Protocol):
    """Knows one minus its distribution function with all digits where the latter is near one."""

    def survival(self, x: Array, /) -> Array:
        """One minus the distribution function, `P(X > x)`, elementwise."""


class HasIcdf(Protocol):
    """Knows its quantile function."""

    def icdf(self, u: Array, /) -> Array:
        """The quantile function, of `u` in [0, 1], elementwise; NaN, or -1 of integers, for others."""


class HasSupport(Protocol):
    """Knows the finitely many values that it takes."""

    def support(self) -> Array | None:
        """The values `[n, *event]`, the same for every entry of the batch; `None` if there are too many, or not known."""


class HasWeakDerivative(Protocol):
    """Knows its derivative as a signed measure, as `mcgrad.MeasureValued` needs it."""

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling, /) -> tuple[WeakDerivative, ...]:
        """Terms of the derivative for a draw `x`.

        What it draws must be independent of the noise of `x`, and distributed as said when `x` is a draw.
        """


class HasOptimalTransport(Protocol):
    """Knows how its draws move at the least kinetic energy."""

    def optimal_transport(self, x: Array, /) -> Array:
        """The draw `x`, with the derivative of optimal transport in the parameters."""


class HasAdaptiveVelocity(Protocol):
    """Knows a family of ways in which its draws may move."""

    def noise(self, key: PRNGKey, /) -> Array:
        """The noise that a draw is made of."""

    def adaptive_velocity(self, noise: Array, rows: Array, columns: Array, /) -> Array:
        """The draw made of the noise, whose derivative is right in the mean whatever the coefficients are."""


class HasNormalNoise(Protocol):
    """Is an affine map of independent standard normal noise, of the shape of a draw."""

    def noise_of(self, x: Array, /) -> Array:
        """The noise that the draw `x` is made of."""

    def of_noise(self, noise: Array, /) -> Array:
        """The draw made of the noise."""


class HasMoments(Protocol):
    """Knows its mean and covariance, as `mcgrad.Taylor` needs them."""

    def moments(self) -> tuple[Array, Array]:
        """The mean, of the shape of a draw, and `roots` `[n, *batch, *event]`, whose sum of outer products is the covariance."""


class HasRelaxation(Protocol):
    """A discrete distribution that knows continuous draws which its own are made of."""

    def relaxation(self, key: PRNGKey, x: Array, coupled: bool, /) -> Relaxation:
        """Continuous draws for a draw `x`; `coupled` says that both are made of the same noise."""


class HasMarginals(Protocol):
    """A distribution of vectors of bits that knows the probability of each bit, whose derivative `mcgrad.StraightThrough` takes."""

    def marginals(self) -> Array:
        """The probability of each bit to be one, `[*batch, *event]`, with its derivative in the parameters."""


_PROTOCOLS = {
    name: method
    for protocol in (HasLogProb, HasProb, HasCdf, HasSurvival, HasIcdf, HasSupport, HasMoments)
    for name, method in vars(protocol).items()
    if not name.startswith("_")
}
_Known = TypeVar("_Known")


def knows(dist: object, protocol: type[_Known]) -> TypeGuard[_Known]:
    """Whether a distribution has the methods of a protocol such as `HasCdf`: a missing one and `None` mean that it does not.

    Example:
        >>> import mcgrad
        >>> from mcgrad.distributions import HasCdf, HasSupport, knows
        >>> knows(mcgrad.Normal(0.0, 1.0), HasCdf), knows(mcgrad.Normal(0.0, 1.0), HasSupport)
        (True, False)
    """
    methods = [name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_")]
    return all(callable(getattr(dist, name, None)) for name in methods)


class Distribution(PyTree):
    """Base of the distributions: subclass as a frozen dataclass whose fields are the parameters.

    A subclass defines `sample`, as a rule also `log_prob`, and whatever else it knows: the methods of the protocols in
    `mcgrad.distributions` (`HasLogProb`, `HasProb`, `HasCdf`, `HasSurvival`, `HasIcdf`, `HasSupport`, `HasWeakDerivative`,
    `HasOptimalTransport`, `HasAdaptiveVelocity`, `HasNormalNoise`, `HasMoments`, `HasRelaxation`, `HasMarginals`).
    Estimators take a missing method and `None` alike as "not known". A method without a docstring has that of its protocol.

    Attributes:
        domains: the domain of each parameter. Parameters named here are checked where they are concrete, brought to one
            floating dtype, and define the batch shape.
        rounds_at_the_end: whether methods see parameters of 16 bits in float32, their results being rounded.
        keeps_nan: whether methods are NaN at NaN, and quantiles outside of [0, 1], as they are written: nothing is added for it.
    """

    domains: ClassVar[Mapping[str, Domain]] = {}
    rounds_at_the_end: ClassVar[bool] = True
    keeps_nan: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, method in vars(cls).items():
            if name in _PROTOCOLS and inspect.isfunction(method) and method.__doc__ is None:
                method.__doc__ = _PROTOCOLS[name].__doc__
        compute_in_single(cls)
        keep_nan(cls)

    @property
    def event_ndim(self) -> int:
        """Number of event axes."""
        return 0

    @property
    def reparameterized(self) -> bool:
        """Whether `sample` is itself differentiable in every parameter."""
        return False

    @property
    def discrete(self) -> bool:
        """Whether the distribution has a probability mass function."""
        return False

    @property
    def support_parameters(self) -> tuple[str, ...]:
        """The parameters with which the support moves; score functions are biased for those."""
        return ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        check_positional(cls, args)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        optional = {name for name, field in getattr(self, "__dataclass_fields__", {}).items() if field.default is None}
        required = {name: None for name in self.domains if name not in optional}
        given = {name: as_parameter(self.law, name, value) for name, value in (required | self._parameters).items()}
        if not given:
            return
        check_shapes(self.law, {name: (jnp.shape(x), self.domains[name].event_ndim) for name, x in given.items()})
        for name, value in given.items():
            check_domain(self.law, name, value, self.domains[name])
        dtype = common_dtype(given.values())
        for name, value in given.items():
            object.__setattr__(self, name, jnp.asarray(value, dtype))

    @property
    def law(self) -> str:
        """The name that messages give this distribution."""
        return type(self).__name__

    @property
    def batch_shape(self) -> Shape:
        """Shape of the independent entries."""
        given = self._parameters.items()
        return jnp.broadcast_shapes(*(jnp.shape(x)[: jnp.ndim(x) - self.domains[name].event_ndim] for name, x in given))

    @property
    def event_shape(self) -> Shape:
        """Shape of one entry: by default the last `event_ndim` axes of the first parameter that has as many in its domain."""
        ndim = self.event_ndim
        found = (
            jnp.shape(x)[-ndim:] for name, x in self._parameters.items() if self.domains[name].event_ndim == ndim > 0
        )
        return next(found, ())

    @property
    def dtype(self) -> Any:
        """The floating dtype of parameters, densities and continuous draws."""
        return common_dtype(self._parameters.values())

    @property
    def _parameters(self) -> dict[str, Any]:
        return {name: value for name in self.domains if (value := getattr(self, name)) is not None}

    def sample(self, key: PRNGKey) -> Any:
        """One draw, of shape `batch_shape + event_shape`."""
        raise NotImplementedError(f"{self.law} must define `sample(key)`.")
