"""Distributions of NumPyro, Distrax and TFP-on-JAX, recognized by the module of their class; nothing is imported."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad import _compat
from mcgrad._closures import Closed
from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Distribution
from mcgrad.distributions.bernoulli import Bernoulli
from mcgrad.distributions.categorical import Categorical, OneHotCategorical
from mcgrad.distributions.checks import is_real_array
from mcgrad.distributions.derivatives.pathwise_check import influences, sampler_obstacle
from mcgrad.distributions.half_precision import in_single
from mcgrad.distributions.wrappers.base import Wrapper
from mcgrad.distributions.wrappers.parts import attributes, is_map, library_of, parts_of, parts_with, strict
from mcgrad.distributions.wrappers.rebuilt import Rebuilt, shapes_of

# Parameters with which the support of a distribution moves (point masses included), for libraries that do not tell.
_SUPPORT_PARAMETERS = {
    "low high": "Bates PERT QuantizedDistribution Triangular TruncatedCauchy TruncatedNormal Uniform",
    "loc": "Deterministic HalfCauchy HalfStudentT Levy VectorDeterministic",
    "loc scale concentration": "GeneralizedExtremeValue GeneralizedPareto",
    "samples": "Empirical",
    "scale": "Pareto",
    "v": "Delta",
}

# A map of these kinds, of a distribution on the whole line, leaves the support where it is.
_AFFINE_MAPS = """
    AffineTransform Block Chain ComposeTransform DiagLinear DiagPlusLowRankLinear Identity IdentityTransform
    LowerCholeskyAffine LowerUpperTriangularAffine Permute PermuteTransform ScalarAffine Scale ScaleMatvecDiag
    ScaleMatvecLU ScaleMatvecTriL Shift TriangularLinear UnconstrainedAffine
"""

_LAWS_ON_THE_LINE = """
    AsymmetricLaplace Cauchy ExpandedDistribution Gumbel Independent Laplace LogStddevNormal Logistic
    MaskedDistribution MultivariateNormal MultivariateNormalDiag MultivariateNormalDiagPlusLowRank
    MultivariateNormalFullCovariance MultivariateNormalTri MultivariateNormalTriL Normal Sample SoftLaplace
    StudentT
"""

# TFP draws these as floats.
_TFP_COUNTS = """
    BetaBinomial Binomial DirichletMultinomial Geometric Multinomial NegativeBinomial Poisson
    PoissonLogNormalQuadratureCompound QuantizedDistribution Skellam ZeroInflatedNegativeBinomial Zipf
"""

# The log density of these is not that of their draws: censored ones give the probability of what is censored and draw what is
# not, `Unit` has any number; TFP's `BetaQuotient` is off by permille, `NoncentralChi2` and `Skellam` have wrong derivatives.
_OTHER_DENSITY = """
    BetaQuotient IntervalCensoredDistribution LeftCensoredDistribution NoncentralChi2 RightCensoredDistribution Skellam Unit
"""

# A function of angles around the location, not from -pi; quantiles that are no integers.
_OTHER_FUNCTION = {("TFP", "VonMises"): "cdf", ("NumPyro", "DiscreteUniform"): "icdf"}

_OF_CLASSES = {"Bernoulli": Bernoulli, "Categorical": Categorical, "OneHotCategorical": OneHotCategorical}
_TRANSFORMED = ("Transformed", "TransformedDistribution")


@dataclasses.dataclass(frozen=True)
class ForeignDistribution(Wrapper):
    """A distribution of another library under mcgrad's protocol.

    Args:
        parameters: the library's distribution, a pytree.
    """

    parameters: Rebuilt

    library: ClassVar[str]

    @property
    def dist(self) -> Any:
        """The library's distribution."""
        return self.parameters.dist

    @property
    def law(self) -> str:
        """The library's name for the distribution."""
        return f"{self.library}'s {type(self.dist).__name__}"

    @property
    def _inner(self) -> Any:
        return self.dist

    def sample(self, key: PRNGKey) -> Array:
        return self._sample(key, self.dist)

    def log_prob(self, x: Any) -> Array:
        with jax.numpy_rank_promotion("allow"):  # how other libraries broadcast is their affair
            return self.dist.log_prob(x)

    @property
    def cdf(self) -> Callable[[Any], Array] | None:
        """The distribution function, if the library has it."""
        return self._optional("cdf")

    @property
    def icdf(self) -> Callable[[Any], Array] | None:
        """The quantile function, if the library has it."""
        return self._optional(self._icdf_name)

    @functools.cached_property
    def discrete(self) -> bool:
        return not jnp.issubdtype(self._draw_dtype, jnp.floating) or self._is_discrete()

    @functools.cached_property
    def _draw_dtype(self) -> Any:
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.eval_shape(lambda key, dist: dist.sample(key), key, self).dtype

    @functools.cached_property
    def pathwise_obstacle(self) -> str | None:
        """Why the derivative of `sample` would be wrong, or `None`."""
        if self.discrete:
            return f"{self.law} is discrete"
        found = sampler_obstacle(self._sample, self.dist, self.law, self._leaf_names)
        if found is None and not self._declares_reparameterized():
            return f"{self.library} does not declare {type(self.dist).__name__} reparameterized"
        return found

    @functools.cached_property
    def support_parameters(self) -> tuple[str, ...]:
        leaves, bounds = self._all_bounds()
        with jax.numpy_rank_promotion("allow"):
            moves = influences(bounds, leaves)
        names = zip(self._leaf_names, leaves, moves, strict=True)
        return tuple(name for name, leaf, m in names if m and jnp.issubdtype(jnp.result_type(leaf), jnp.floating))

    @property
    def bounds_close_over(self) -> bool:
        """Whether the support moves, or for all that can be seen may move, with what the program computes and is no parameter."""
        around_tfp = [part for part in parts_of(self.dist) if type(part).__name__ == "DistributionFromTFP"]
        if not self.discrete and any(part.name not in _LAWS_ON_THE_LINE.split() for part in around_tfp):
            return True
        leaves, bounds = self._all_bounds()
        with jax.numpy_rank_promotion("allow"):
            hidden = Closed.of(lambda leaves: bounds(*leaves), list(map(jnp.asarray, leaves)))
        return any(isinstance(array, _compat.Tracer) for array in hidden.arrays)

    def _all_bounds(self) -> tuple[list[Any], Callable[..., list[Any]]]:
        """The leaves, and what the support is made of as a function of them."""
        leaves, tree = jax.tree.flatten(self.dist)

        def bounds(*leaves: Any) -> list[Any]:
            laws = parts_with(jax.tree.unflatten(tree, leaves), "log_prob")
            found = [value for law in laws for value in self._bounds(law) if value is not None]
            # what TFP calls a deferred tensor is a number once something is added to it
            return [jnp.asarray(value if is_real_array(value) else value + 0) for value in found]

        return leaves, bounds

    def support(self) -> Array | None:
        values = self._finite_support()
        return None if values is None else values.astype(self._draw_dtype)

    @property
    def relaxation(self) -> Any:
        """The relaxation of mcgrad's own distribution of the same name, or `None`."""
        return getattr(self._own, "relaxation", None)

    @property
    def _own(self) -> Any:
        """mcgrad's own distribution of the same name, where it lists its values, or `None`."""
        name = type(self.dist).__name__
        own = _OF_CLASSES.get(name.removesuffix("Logits").removesuffix("Probs"))
        if own is None:
            return None
        logits = None if name.endswith("Probs") else self.dist.logits
        return own(probs=self.dist.probs) if logits is None else own(logits=logits)

    # What differs between the libraries:

    _icdf_name: ClassVar[str] = "icdf"

    def _sample(self, key: PRNGKey, dist: Any) -> Array:
        with jax.numpy_rank_promotion("allow"):
            return dist.sample(seed=key)

    def _declares_reparameterized(self) -> bool:
        return True

    def _is_discrete(self) -> bool:
        return False

    def _finite_support(self) -> Array | None:
        if type(self.dist).__name__ == "ProbitBernoulli":
            return jnp.arange(2)
        return None if self._own is None else self._own.support()

    def _bounds(self, law: Any) -> list[Any]:
        """Arrays that the support of one distribution is made of."""
        name = type(law).__name__
        if name in _TRANSFORMED:
            maps = [part for part in parts_of(law) if is_map(part)]
            base = [part for part in parts_of(law) if part is not law and hasattr(part, "log_prob")]
            fixed = all(type(part).__name__ in _AFFINE_MAPS.split() for part in maps) and all(
                type(part).__name__ in _LAWS_ON_THE_LINE.split() for part in base
            )
            return [] if fixed else jax.tree.leaves(maps)
        moving = (parameters for parameters, laws in _SUPPORT_PARAMETERS.items() if name in laws.split())
        return [getattr(law, parameter, None) for parameter in " ".join(moving).split()]

    def _optional(self, name: str) -> Callable[[Any], Array] | None:
        other = _OTHER_FUNCTION.get((self.library, type(self.dist).__name__)) == name
        if other or getattr(self.dist, name, None) is None or self.event_ndim:
            return None
        fn = getattr(in_single(self).dist, name)

        def function(value: Any) -> Array:
            with jax.numpy_rank_promotion("allow"):
                return fn(in_single(value))

        dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(self.dist)]
        dtype = jnp.result_type(jnp.float32, *(dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)))
        try:
            jax.eval_shape(function, jax.ShapeDtypeStruct(self.batch_shape, dtype))
        # how these libraries say that a distribution has none, one that JAX cannot trace, or one that another package computes
        except (NotImplementedError, AttributeError, TypeError, ImportError):
            return None
        return function

    @functools.cached_property
    def _leaf_names(self) -> list[str]:
        """Names of the leaves, found as attributes of the distribution rebuilt from placeholders."""
        leaves, tree = jax.tree.flatten(self.dist)
        names = [f"leaf {i}" for i in range(len(leaves))]

        def inspect(*placeholders: Any) -> int:
            known = {id(placeholder): i for i, placeholder in enumerate(placeholders)}
            for path, value in attributes(jax.tree.unflatten(tree, placeholders)):
                i = known.pop(id(value), None)
                if i is not None:
                    names[i] = path
            return 0

        structs = [jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
        jax.eval_shape(inspect, *structs)
        return names


@dataclasses.dataclass(frozen=True)
class NumPyroDistribution(ForeignDistribution):
    """A distribution of NumPyro."""

    library: ClassVar[str] = "NumPyro"

    def _sample(self, key: PRNGKey, dist: Any) -> Array:
        with jax.numpy_rank_promotion("allow"):
            return jnp.asarray(dist.sample(key))  # `Delta` returns the number that it was given

    def _declares_reparameterized(self) -> bool:
        return self.dist.has_rsample

    def _is_discrete(self) -> bool:
        try:
            return self.dist.is_discrete
        except (NotImplementedError, AssertionError):  # its support is not known: the dtype of a draw tells
            return False

    def _bounds(self, law: Any) -> list[Any]:
        try:
            constraint = jax.tree.leaves(law.support)  # a pytree, with the bounds as leaves
        except NotImplementedError:
            constraint = []
        return constraint + super()._bounds(law)

    def _finite_support(self) -> Array | None:
        if not self.dist.has_enumerate_support:
            return None
        try:
            values = self.dist.enumerate_support(expand=False)
        except (NotImplementedError, jax.errors.ConcretizationTypeError):  # for instance a `total_count` that is traced
            return None
        return jnp.reshape(values, (values.shape[0], *self.event_shape))


@dataclasses.dataclass(frozen=True)
class DistraxDistribution(ForeignDistribution):
    """A distribution of Distrax."""

    library: ClassVar[str] = "Distrax"


@dataclasses.dataclass(frozen=True)
class TFPDistribution(ForeignDistribution):
    """A distribution of TensorFlow Probability on JAX."""

    library: ClassVar[str] = "TFP"
    _icdf_name: ClassVar[str] = "quantile"

    def log_prob(self, x: Any) -> Array:
        """Log density."""
        found = super().log_prob(x)
        below = type(self.dist).__name__ == "GeneralizedPareto"  # has a density there
        return jnp.where(x >= self.dist.loc, found, -jnp.inf) if below else found

    def _declares_reparameterized(self) -> bool:
        return "FULLY_REPARAMETERIZED" in repr(self.dist.reparameterization_type)

    def _is_discrete(self) -> bool:
        return any(type(part).__name__ in _TFP_COUNTS.split() for part in parts_of(self.dist))


_ADAPTERS: dict[str | None, type[ForeignDistribution]] = {
    "numpyro": NumPyroDistribution,
    "distrax": DistraxDistribution,
    "tensorflow_probability": TFPDistribution,
}


def as_distribution(dist: Any) -> Any:
    """A distribution under mcgrad's protocol.

    Args:
        dist: a distribution of mcgrad, or any pytree with `sample(key)`, `log_prob(x)`, `batch_shape`, `event_shape`
            and `reparameterized`, returned as it is; or one of NumPyro, Distrax or TFP-on-JAX, which is wrapped.

    Returns:
        The distribution.

    Raises:
        TypeError: if it is none, or one that cannot be drawn from while JAX traces its parameters, whose draw has several arrays,
            or other shapes than it says.

    Example:
        >>> import mcgrad
        >>> mcgrad.distributions.as_distribution(mcgrad.Normal(0.0, 1.0)).law
        'Normal'
    """
    if isinstance(dist, Distribution):
        return dist
    protocol = ("sample", "log_prob", "batch_shape", "event_shape")
    if not isinstance(dist, type) and all(hasattr(dist, name) for name in protocol):
        adapter = _ADAPTERS.get(library_of(dist))
        if adapter is not None or hasattr(dist, "reparameterized"):
            parameters: Any = None if adapter is None else Rebuilt.of(strict(_unmasked(dist)))
            if any(leaf is dist for leaf in (jax.tree.leaves(dist) if parameters is None else parameters.leaves)):
                raise TypeError(
                    f"`mcgrad.sample(dist=...)` must be a pytree, got {type(dist).__name__}, whose parameters JAX "
                    "cannot see. Register the class with `jax.tree_util.register_dataclass`."
                )
            return dist if adapter is None else _adapted(adapter, parameters)
    is_class = isinstance(dist, type)
    if not is_class and hasattr(dist, "sample") and hasattr(dist, "log_prob"):  # as those of flowjax and distreqx
        raise TypeError(
            "`mcgrad.sample(dist=...)` must have `batch_shape`, `event_shape` and `reparameterized` too, got "
            f"{type(dist).__name__}. Pass `Made(dist)`, with `Made = mcgrad.distribution(sampler=lambda key, d: d.sample(key), "
            "log_prob=lambda x, d: d.log_prob(x), event_ndim=None)`."
        )
    raise TypeError(
        f"`mcgrad.sample(dist=...)` must be a distribution, got {dist if is_class else type(dist).__name__}."
        + (f" Call it with its parameters: `{dist.__name__}(...)`. Or pass" if is_class else " Pass")
        + " one of mcgrad, NumPyro, Distrax or TFP-on-JAX, or a pytree with `sample`, `log_prob`, `batch_shape`, "
        "`event_shape` and `reparameterized`."
    )


def entry_by_entry(dist: Any) -> Any:
    """A discrete distribution of NumPyro or Distrax without its reinterpreted axes (`to_event`, `Independent`).

    The draws are the same, but each entry is a draw of its own: credited by itself, with the estimators of single draws.
    """
    kinds = (NumPyroDistribution, DistraxDistribution)
    while isinstance(dist, kinds) and type(dist.dist).__name__ == "Independent" and dist.discrete:
        dist = as_distribution(dist.dist.base_dist if dist.library == "NumPyro" else dist.dist.distribution)
    return dist


_WITHOUT_DENSITY = {cls: type(cls.__name__, (cls,), {"log_prob": None}) for cls in _ADAPTERS.values()}


def _adapted(adapter: type[ForeignDistribution], parameters: Rebuilt) -> ForeignDistribution:
    adapted = adapter(parameters)
    _, log_prob = shapes_of(adapted)
    other = any(type(part).__name__ in _OTHER_DENSITY.split() for part in parts_of(adapted.dist))
    return _WITHOUT_DENSITY[adapter](parameters) if other or log_prob is None else adapted


def _unmasked(dist: Any) -> Any:
    """The distribution that draws come from: NumPyro's masks change the log density alone."""
    while type(dist).__name__ == "MaskedDistribution":
        dist = dist.base_dist
    for part in parts_of(dist):
        if type(part).__name__ in ("MaskedDistribution", "Masked"):
            raise TypeError(
                f"`mcgrad.sample(dist=...)` must be a distribution whose log density is that of its draws, got "
                f"{type(dist).__name__} with {type(part).__name__} in it. Draw without the mask, and multiply the costs by it."
            )
    return dist
