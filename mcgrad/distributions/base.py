"""What a distribution is: the protocol that sites and estimators use, and what all distributions of mcgrad share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._types import PRNGKey, PyTree, Shape
from mcgrad.distributions.checks import Domain, check_domain, check_shapes, common_dtype, is_real_array


class Relaxation(NamedTuple):
    """Continuous draws `z` that a draw `x = H(z)` of a discrete law comes from, for all entries of the batch.

    `E[c(free)]` and `E[w c(given)]`, with `w = p_theta(x) / stop(p_theta(x))`, are equal as functions of the parameters.

    Attributes:
        free: a draw of `z` whose `H(z)` is the draw, moved by the parameters as one that is free, its noise held.
        given: a draw of `z` given the draw, moved by the parameters, the draw and its noise held.
        log_prob: log probability of the draw, of the batch shape; without derivative where `z` has none.
    """

    free: Array
    given: Array
    log_prob: Array


class Distribution(PyTree):
    """Base of the laws: subclass as a frozen dataclass whose fields are the parameters.

    A subclass defines `sample` and `log_prob`, and sets what more it knows (class attributes, properties or methods):

    Class attributes:
        domains: the domain of each parameter. Parameters named here are checked where they are concrete, brought to one
            floating dtype, and define the batch shape.
        event_ndim: number of event axes.
        reparameterized: whether `sample` is itself differentiable in every parameter.
        discrete: whether the law has a probability mass function.
        support_parameters: the parameters with which the support moves; score functions are biased for those.
        cdf: distribution function, elementwise, or `None`.
        survival: one minus the distribution function, with all digits where that is near one; or `None`.
        icdf: quantile function of u in (0, 1), elementwise, or `None`.
        support: a method that returns the values of a finite support, `[n, *event shape]`, the same for every entry of
            the batch; or `None`.
        prob: a method that returns probabilities with finite derivatives also where they are zero, or `None`.
        weak_derivative: a method of `(key, x, how)`, for a draw `x`, that returns a tuple of `WeakDerivative`; what it
            draws is independent of the noise of `x`, and distributed as said when `x` is a draw from the law; or `None`.
        optimal_transport: a method of a draw `x` that returns it with a derivative in the parameters that moves the law at
            the least kinetic energy; or `None`.
        adaptive_velocity: a method of the noise `noise(key)` of a draw, and of coefficients, that returns the draw with a
            derivative in the parameters that moves the law whatever the coefficients are; or `None`.
        relaxation: of a discrete law, a method of `(key, x, coupled)`, for a draw `x`, that returns a `Relaxation`; `coupled` says
            that its two draws are made of the same noise; or `None`.
    """

    domains: ClassVar[Mapping[str, Domain]] = {}
    event_ndim: ClassVar[Any] = 0
    reparameterized: ClassVar[Any] = False
    discrete: ClassVar[Any] = False
    support_parameters: ClassVar[Any] = ()
    cdf: ClassVar[Any] = None
    survival: ClassVar[Any] = None
    icdf: ClassVar[Any] = None
    support: ClassVar[Any] = None
    prob: ClassVar[Any] = None
    weak_derivative: ClassVar[Any] = None
    optimal_transport: ClassVar[Any] = None
    adaptive_velocity: ClassVar[Any] = None
    relaxation: ClassVar[Any] = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in self.domains if getattr(self, name) is not None}
        if not given:
            return
        for name, value in given.items():
            if not is_real_array(value):
                raise TypeError(
                    f"`mcgrad.{self.law}({name}=...)` must be a real number or array, got "
                    f"{type(value).__name__}: {value!r}. Convert it with `jnp.asarray`."
                )
        check_shapes(
            self.law, {name: (jnp.shape(value), self.domains[name].event_ndim) for name, value in given.items()}
        )
        for name, value in given.items():
            check_domain(self.law, name, value, self.domains[name])
        dtype = common_dtype(given.values())
        for name, value in given.items():
            object.__setattr__(self, name, jnp.asarray(value, dtype))

    @property
    def law(self) -> str:
        """The name that messages give this law."""
        return type(self).__name__

    @property
    def batch_shape(self) -> Shape:
        """Shape of the independent entries."""
        shapes = []
        for name, domain in self.domains.items():
            value = getattr(self, name)
            if value is not None:
                shape = jnp.shape(value)
                shapes.append(shape[: len(shape) - domain.event_ndim])
        return jnp.broadcast_shapes(*shapes)

    @property
    def event_shape(self) -> Shape:
        """Shape of one entry."""
        return ()

    @property
    def dtype(self) -> Any:
        """The floating dtype of parameters, densities and continuous draws."""
        return common_dtype(value for name in self.domains if (value := getattr(self, name)) is not None)

    def sample(self, key: PRNGKey) -> Any:
        """One draw, of shape `batch_shape + event_shape`."""
        raise NotImplementedError(f"{self.law} must define `sample(key)`.")

    def log_prob(self, x: Array) -> Array:
        """Log density (or log probability) of a value, of shape `batch_shape`."""
        raise NotImplementedError(f"{self.law} must define `log_prob(x)`.")
