"""Distributions of NumPyro, Distrax and TFP-on-JAX, recognized by the module of their class; nothing is imported."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad import _compat
from mcgrad._closures import Closed
from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Distribution
from mcgrad.distributions.binomial import Bernoulli
from mcgrad.distributions.categorical import Categorical, OneHotCategorical
from mcgrad.distributions.derivatives.pathwise_check import influences, sampler_obstacle
from mcgrad.distributions.wrappers.base import Wrapper

# Parameters with which the support of a distribution moves (point masses included), for libraries that do not tell.
_SUPPORT_PARAMETERS = {
    "low high": "Bates PERT QuantizedDistribution Triangular TruncatedCauchy TruncatedNormal Uniform",
    "loc": "Deterministic VectorDeterministic",
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

_OF_CLASSES = {"Bernoulli": Bernoulli, "Categorical": Categorical, "OneHotCategorical": OneHotCategorical}
_TRANSFORMED = ("Transformed", "TransformedDistribution")


@dataclasses.dataclass(frozen=True)
class ForeignDistribution(Wrapper):
    """A distribution of another library under mcgrad's protocol.

    Args:
        dist: the library's distribution, a pytree.
    """

    dist: Any

    library: ClassVar[str]

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
        return jax.eval_shape(lambda key, dist: self._sample(key, dist), key, self.dist).dtype

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
        around_tfp = [part for part in _parts(self.dist) if type(part).__name__ == "DistributionFromTFP"]
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
            laws = (part for part in _parts(jax.tree.unflatten(tree, leaves)) if hasattr(part, "log_prob"))
            return [jnp.asarray(value) for law in laws for value in self._bounds(law)]

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
        return None if self._own is None else self._own.support()

    def _bounds(self, law: Any) -> list[Any]:
        """Arrays that the support of one distribution is made of."""
        name = type(law).__name__
        if name in _TRANSFORMED:
            volumes = ("log_abs_det_jacobian", "forward_log_det_jacobian")
            maps = [part for part in _parts(law) if any(hasattr(part, name) for name in volumes)]
            base = [part for part in _parts(law) if part is not law and hasattr(part, "log_prob")]
            fixed = all(type(part).__name__ in _AFFINE_MAPS.split() for part in maps) and all(
                type(part).__name__ in _LAWS_ON_THE_LINE.split() for part in base
            )
            return [] if fixed else jax.tree.leaves(maps)
        moving = (parameters for parameters, laws in _SUPPORT_PARAMETERS.items() if name in laws.split())
        return [getattr(law, parameter) for parameter in " ".join(moving).split()]

    def _optional(self, name: str) -> Callable[[Any], Array] | None:
        fn = getattr(self.dist, name, None)
        if fn is None or self.event_ndim:
            return None

        def function(value: Any) -> Array:
            with jax.numpy_rank_promotion("allow"):
                return fn(value)

        dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(self.dist)]
        dtype = jnp.result_type(jnp.float32, *(dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)))
        try:
            jax.eval_shape(function, jax.ShapeDtypeStruct(self.batch_shape, dtype))
        # how these libraries say that a distribution has none, or one that JAX cannot trace
        except (NotImplementedError, AttributeError, TypeError):
            return None
        return function

    @functools.cached_property
    def _leaf_names(self) -> list[str]:
        """Names of the leaves, found as attributes of the distribution rebuilt from placeholders."""
        leaves, tree = jax.tree.flatten(self.dist)
        names = [f"leaf {i}" for i in range(len(leaves))]

        def inspect(*placeholders: Any) -> int:
            known = {id(placeholder): i for i, placeholder in enumerate(placeholders)}
            for path, value in _attributes(jax.tree.unflatten(tree, placeholders)):
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
        return self.dist.is_discrete

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

    def _declares_reparameterized(self) -> bool:
        return "FULLY_REPARAMETERIZED" in repr(self.dist.reparameterization_type)

    def _is_discrete(self) -> bool:
        return any(type(part).__name__ in _TFP_COUNTS.split() for part in _parts(self.dist))


_LIBRARIES: dict[str, type[ForeignDistribution]] = {
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
        TypeError: if it is none.

    Example:
        >>> import mcgrad
        >>> mcgrad.distributions.as_distribution(mcgrad.Normal(0.0, 1.0)).law
        'Normal'
    """
    if isinstance(dist, Distribution):
        return dist
    protocol = ("sample", "log_prob", "batch_shape", "event_shape")
    if not isinstance(dist, type) and all(hasattr(dist, name) for name in protocol):
        adapter = _adapter(dist)
        if adapter is not None or hasattr(dist, "reparameterized"):
            if any(leaf is dist for leaf in jax.tree.leaves(dist)):
                raise TypeError(
                    f"`mcgrad.sample(dist=...)` must be a pytree, got {type(dist).__name__}, whose parameters JAX "
                    "cannot see. Register the class with `jax.tree_util.register_dataclass`."
                )
            return dist if adapter is None else adapter(_unmasked(dist))
    is_class = isinstance(dist, type)
    raise TypeError(
        f"`mcgrad.sample(dist=...)` must be a distribution, got {dist if is_class else type(dist).__name__}."
        + (f" Call it with its parameters: `{dist.__name__}(...)`. Or pass" if is_class else " Pass")
        + " one of mcgrad, NumPyro, Distrax or TFP-on-JAX, or a pytree with `sample`, `log_prob`, `batch_shape`, "
        "`event_shape` and `reparameterized`."
    )


def _unmasked(dist: Any) -> Any:
    """The distribution that draws come from: NumPyro's masks change the log density alone."""
    while type(dist).__name__ == "MaskedDistribution":
        dist = dist.base_dist
    for part in _parts(dist):
        if type(part).__name__ in ("MaskedDistribution", "Masked"):
            raise TypeError(
                f"`mcgrad.sample(dist=...)` must be a distribution whose log density is that of its draws, got "
                f"{type(dist).__name__} with {type(part).__name__} in it. Draw without the mask, and multiply the costs by it."
            )
    return dist


def _adapter(dist: Any) -> type[ForeignDistribution] | None:
    for cls in type(dist).__mro__:
        library = cls.__module__.partition(".")[0]
        if library in _LIBRARIES:
            return _LIBRARIES[library]
    return None


def _attributes(obj: Any, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Names and values of the attributes of a distribution, of its parts, and of entries of containers in it."""
    seen = set() if seen is None else seen
    if id(obj) in seen or isinstance(obj, type):
        return
    seen.add(id(obj))
    yield prefix, obj
    if isinstance(obj, dict):
        entries = [(str(key), value) for key, value in obj.items()]
    elif isinstance(obj, (list, tuple)):
        entries = [(str(i), value) for i, value in enumerate(obj)]
    elif _adapter(obj) is not None:
        entries = list(getattr(obj, "__dict__", {}).items())
    else:
        return
    for key, value in entries:
        name = key.lstrip("_")
        # TFP keeps the arguments of the constructor in `_parameters`
        path = prefix if name == "parameters" else f"{prefix}.{name}" if prefix else name
        yield from _attributes(value, path, seen)


def _parts(dist: Any) -> list[Any]:
    return [value for _, value in _attributes(dist) if _adapter(value) is not None]
