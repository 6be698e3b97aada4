"""Models and guides of NumPyro as programs: `import mcgrad.numpyro`, which needs NumPyro.

A model and a guide stay as they are. The latent draws of the guide become draws of the program, each with an estimator, and the
bound stays a sum over the entries of all sites, so that each entry of a plate is credited with its own terms by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import Delta
from numpyro.infer import elbo as _elbo

from mcgrad import _compat
from mcgrad._arguments import check_at_least, check_callable
from mcgrad._types import PRNGKey
from mcgrad.program import Estimator
from mcgrad.sample import check_estimator, sample
from mcgrad.transforms import expectation

__all__ = ["ELBO", "elbo"]

_compat.not_of_the_user(numpyro.__file__)


def elbo(
    model: Callable[..., Any], guide: Callable[..., Any], *, sites: Mapping[str, Estimator] | None = None
) -> Callable[..., Float[Array, ""]]:
    r"""The evidence lower bound of a NumPyro model and guide, as a program for `mcgrad.grad`.

        ELBO = E_{z ~ q} [ log w ],    log w = log p(x, z) - log q(z)

    The program returns `log w` for one draw of the guide: it is to be maximized, and is also the log weight that `mcgrad.iwae`,
    `mcgrad.vimco`, `mcgrad.dreg` and the like take. Plates, subsampling, masks, `handlers.scale`, `condition`, `substitute` and
    NumPyro's own `scan` count as NumPyro counts them. Latent sites of the model that the guide has not are drawn from
    the model, and their terms cancel. Continuous and discrete latents; draws of several particles by `num_samples=`.

    Args:
        model, guide: of NumPyro, with the same arguments.
        sites: estimators of latent draws by the name of their site; the others take that of the transform.

    Returns:
        `program(params, key, *args, **kwargs)`: `params` has the values of `numpyro.param` sites by name, constrained, as
        `SVI.get_params` gives them.

    Raises:
        ValueError: for a name in `sites` that is no latent site of the guide or the model.
        TypeError: for something that is no estimator.

    Example:
        >>> import jax, mcgrad.numpyro, numpyro, numpyro.distributions as dist
        >>> def model(x):
        ...     z = numpyro.sample("z", dist.Bernoulli(0.5))
        ...     numpyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=x)
        >>> def guide(x):
        ...     numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("logits", 0.0)))
        >>> bound = mcgrad.numpyro.elbo(model, guide)
        >>> mcgrad.grad(bound, num_samples=4)({"logits": 0.0}, jax.random.key(0), 0.7)["logits"].shape
        ()

    References:
        Wingate and Weber 2013, "Automated Variational Inference in Probabilistic Programming",
        https://arxiv.org/abs/1301.1299; Schulman et al. 2015, https://arxiv.org/abs/1506.05254 (credit).
    """
    named = dict(sites or {})
    for name, estimator in named.items():
        check_estimator(estimator, f"numpyro.elbo(sites={{{name!r}: ...}})")

    def program(params: Mapping[str, Any], key: PRNGKey, *args: Any, **kwargs: Any) -> Float[Array, ""]:
        latent: set[str] = set()

        def draw(site: dict[str, Any]) -> Any:
            if site["type"] != "sample" or site["value"] is not None or isinstance(site["fn"], Delta):
                return None  # replayed, observed, or no draw
            latent.add(site["name"])
            dist, shape = site["fn"], tuple(site["kwargs"]["sample_shape"])
            if shape:
                dist = dist.expand(shape + tuple(dist.batch_shape))
            return sample(site["kwargs"]["rng_key"], dist, named.get(site["name"]), name=site["name"])

        def traced(fn: Callable[..., Any]) -> Any:
            drawn = handlers.substitute(handlers.substitute(fn, data=dict(params)), substitute_fn=draw)
            return handlers.trace(drawn).get_trace(*args, **kwargs)

        of_guide_key, of_model_key = jax.random.split(key)
        of_guide = traced(handlers.seed(guide, of_guide_key))
        of_model = traced(handlers.replay(handlers.seed(model, of_model_key), of_guide))
        if unknown := named.keys() - latent:
            raise ValueError(
                f"`mcgrad.numpyro.elbo(sites=...)` must name latent sites, got {', '.join(map(repr, sorted(unknown)))}. "
                f"Those of this model and guide are {', '.join(map(repr, sorted(latent))) or 'none'}."
            )
        bound = jnp.zeros(())
        for name, site in of_model.items():
            if site["type"] == "sample" and (site["is_observed"] or name in of_guide):
                bound += jnp.sum(_log_prob(site))
        for site in of_guide.values():
            if site["type"] == "sample":
                bound -= jnp.sum(_log_prob(site))
        return bound

    return program


def _log_prob(site: Mapping[str, Any]) -> Array:
    """The log density of a site's value, scaled as its plates and handlers say."""
    further = [site["intermediates"]] if site["intermediates"] else []
    log_prob = site["fn"].log_prob(site["value"], *further)
    return log_prob if site["scale"] is None else site["scale"] * log_prob


class ELBO(_elbo.ELBO):
    """The negative evidence lower bound as a loss for `numpyro.infer.SVI`, with mcgrad's gradients.

    `SVI(model, guide, optim, loss=mcgrad.numpyro.ELBO(num_particles=4))`. Unbiased for discrete and continuous latents.

    Args:
        num_particles: how many draws of the guide are averaged; score estimators then use leave-one-out baselines.
        sites, estimator: see `elbo` and `mcgrad.expectation`.
        bound: in place of the average, a bound of `num_particles` draws such as `mcgrad.iwae`, `mcgrad.vimco` or `mcgrad.dreg`.

    Raises:
        ValueError: for a number of particles that cannot be.
        TypeError: for something that is no estimator, or a bound that is no function.
    """

    can_infer_discrete = True

    def __init__(
        self,
        num_particles: int = 1,
        *,
        sites: Mapping[str, Estimator] | None = None,
        estimator: Estimator | None = None,
        bound: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(num_particles=check_at_least(num_particles, 1, "numpyro.ELBO(num_particles=...)"))
        check_estimator(estimator, "numpyro.ELBO")
        self.sites, self.estimator, self.bound = sites, estimator, bound
        if bound is not None:
            check_callable(self, "bound", "a program and a number of samples", "Pass for instance `mcgrad.iwae`.")

    def loss(
        self,
        rng_key: PRNGKey,
        param_map: Mapping[str, Any],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Float[Array, ""]:
        """An unbiased estimate of minus the bound, to be differentiated by JAX."""
        program = elbo(model, guide, sites=self.sites)
        num_samples = self.num_particles
        if self.bound is not None:
            program, num_samples = self.bound(program, num_samples), 1
        estimate = expectation(program, estimator=self.estimator, num_samples=num_samples)
        return -estimate(param_map, rng_key, *args, **kwargs)
