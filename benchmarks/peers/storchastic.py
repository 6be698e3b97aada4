"""Storchastic's estimators, and the same ones written by hand in torch, on the toys and the autoencoder.

Costs are registered as the library's own examples do: `denote_independent` for the batch, `deterministic` for encoder and
decoder, a cost for the divergence and one for the reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import storch
import torch
from torch.distributions import Bernoulli, OneHotCategorical
from torch.distributions.utils import clamp_probs
from torch.nn import functional

from benchmarks import inputs
from benchmarks.worker import Case, serve

THREADS = 2
METHODS: dict[str, Callable[[tuple[int, ...]], Any]] = {
    "score": lambda shape: storch.method.ScoreFunction("z", n_samples=1),
    "leave-one-out of 4": lambda shape: storch.method.ScoreFunction("z", n_samples=4, baseline_factory="batch_average"),
    "leave-one-out of 10": lambda shape: storch.method.ScoreFunction(
        "z", n_samples=10, baseline_factory="batch_average"
    ),
    "enumeration": lambda shape: storch.method.Expect("z"),
    "ARM": lambda shape: storch.method.ARM("z", n_samples=1),
    "DisARM": lambda shape: storch.method.DisARM("z", n_samples=1),
    "Gumbel-softmax": lambda shape: storch.method.GumbelSoftmax("z", n_samples=1),
    "straight-through": lambda shape: storch.method.GumbelSoftmax("z", n_samples=1, straight_through=True),
    "REBAR": lambda shape: storch.method.REBAR("z", n_samples=1),
    "RELAX": lambda shape: storch.method.RELAX("z", n_samples=1, in_dim=shape),
    "unordered set of 2": lambda shape: storch.method.UnorderedSetEstimator("z", k=2),
    "unordered set of 4": lambda shape: storch.method.UnorderedSetEstimator("z", k=4),
    "sum and sample of 4": lambda shape: storch.method.RaoBlackwellSF("z", n_samples=4),
}


class _Bits:
    """`sum_d (b_d - 0.499)^2`."""

    law, shape, events = Bernoulli, None, (-1,)

    def __init__(self, num: int):
        self.logits = torch.tensor(inputs.small_bits(num), requires_grad=True)
        self.params, self.reported, self.shape = [self.logits], [self.logits], (num,)

    def probs(self) -> torch.Tensor:
        return self.logits.sigmoid()

    def cost(self, z: torch.Tensor) -> torch.Tensor:
        return ((z.float() - 0.499) ** 2).sum(-1)

    def extra(self, p: torch.Tensor) -> Any:
        return None

    def register(self, method: Any) -> None:
        z = method(self.law(probs=self.probs()))
        storch.add_cost(storch.deterministic(self.cost)(z), "cost")


class _Table(_Bits):
    """A cost for each outcome of three draws of ten."""

    law, events = OneHotCategorical, (-2, -1)

    def __init__(self):
        logits, costs = inputs.table()
        self.logits, self.costs = torch.tensor(logits, requires_grad=True), torch.tensor(costs)
        self.params, self.reported, self.shape = [self.logits], [self.logits], (3, 10)

    def probs(self) -> torch.Tensor:
        return self.logits.softmax(-1)

    def cost(self, z: torch.Tensor) -> torch.Tensor:
        return torch.einsum("...i,...j,...k,ijk->...", z[..., 0, :], z[..., 1, :], z[..., 2, :], self.costs)


class _Autoencoder(_Bits):
    """784-200-784, 64 images."""

    def __init__(self):
        images, params = inputs.autoencoder()
        self.images = torch.tensor(images)
        self.encoder, self.decoder = (
            torch.tensor(np.ascontiguousarray(params[name].T), requires_grad=True) for name in ("encoder", "decoder")
        )
        self.reported = [torch.tensor(params[name], requires_grad=True) for name in ("encoder_bias", "decoder_bias")]
        self.params, self.shape = [self.encoder, self.decoder, *self.reported], (inputs.LATENTS,)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return clamp_probs(functional.linear(images, self.encoder, self.reported[0]).sigmoid())

    def probs(self) -> torch.Tensor:
        return self.encode(self.images)

    def extra(self, p: torch.Tensor) -> torch.Tensor:
        return (p * (2 * p).log() + (1 - p) * (2 * (1 - p)).log()).sum(-1)

    def reconstruction(self, z: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        out = functional.linear(z.float(), self.decoder, self.reported[1])
        return functional.binary_cross_entropy_with_logits(out, images.expand_as(out), reduction="none").sum(-1)

    def cost(self, z: torch.Tensor) -> torch.Tensor:
        return self.reconstruction(z, self.images)

    def register(self, method: Any) -> None:
        images = storch.denote_independent(self.images, 0, "data")
        p = storch.deterministic(self.encode)(images)
        storch.add_cost(storch.deterministic(self.extra)(p), "divergence")
        z = method(Bernoulli(probs=p))
        storch.add_cost(storch.deterministic(self.reconstruction)(z, images), "reconstruction")


PROBLEMS = {"small_bits": _Bits, "table": _Table, "autoencoder": _Autoencoder}


def _case(problem: Any, step: Callable[[], float]) -> Case:
    def once() -> float:
        for parameter in problem.params:
            parameter.grad = None
        return step()

    def draw(count: int, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        rows = []
        for _ in range(count):
            value = once()
            rows.append(np.concatenate([[value], *(p.grad.detach().numpy().ravel() for p in problem.reported)]))
        return np.array(rows)

    torch.manual_seed(0)
    return Case(once, draw)


def library(problem: str, estimator: str, **arguments: Any) -> Case:
    """Storchastic itself."""
    storch.inference._cost_tensors, storch.inference._sampling_methods = (
        [],
        [],
    )  # a case that raised leaves these behind
    storch.wrappers._ignore_wrap, storch.wrappers._context_deterministic = False, 0
    if estimator not in METHODS:
        raise LookupError("not in Storchastic")
    built = PROBLEMS[problem](**arguments)
    method = METHODS[estimator](built.shape)

    def step() -> float:
        for parameter in method.parameters():
            parameter.grad = None
        built.register(method)
        return float(storch.backward())

    return _case(built, step)


def by_hand(problem: str, estimator: str, **arguments: Any) -> Case:
    """The same estimator in torch, without a library."""
    built = PROBLEMS[problem](**arguments)
    binary = built.law is Bernoulli
    num_samples = {"leave-one-out of 4": 4, "leave-one-out of 10": 10}.get(estimator, 1)

    def score(p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            z = built.law(probs=p).sample((num_samples,))
        log_prob = (z * p.log() + (1 - z) * (-p).log1p()) if binary else z * p.log()
        cost = built.cost(z)
        fixed = cost.detach()
        baseline = (fixed.sum(0) - fixed) / (num_samples - 1) if num_samples > 1 else 0.0
        return ((fixed - baseline) * log_prob.sum(built.events) + cost).mean(), cost.mean()

    def relaxed(p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if binary:
            u = clamp_probs(torch.rand(1, *p.shape))
            z = (p.log() - (-p).log1p() + u.log() - (-u).log1p()).sigmoid()
            hard = z.round()
        else:
            z = (p.log() - (-clamp_probs(torch.rand(1, *p.shape)).log()).log()).softmax(-1)
            hard = functional.one_hot(z.argmax(-1), p.shape[-1]).float()
        cost = built.cost(z if estimator == "Gumbel-softmax" else hard - z.detach() + z)
        return cost.mean(), cost.mean()

    def arm(p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = p.log() - (-p).log1p()
        with torch.no_grad():
            u = torch.rand(1, *p.shape)
            difference = built.cost((u > 1 - p).float()) - built.cost((u < p).float())
            weight = difference.unsqueeze(-1) * (u - 0.5)
        cost = built.cost((u < p).float())
        return cost.mean() + (weight * logits).sum(-1).mean(), cost.mean()

    chosen = {"Gumbel-softmax": relaxed, "straight-through": relaxed, "ARM": arm}
    if estimator not in chosen and not estimator.startswith(("score", "leave-one-out")):
        raise NotImplementedError(f"{estimator} is not written by hand")
    surrogate = chosen.get(estimator, score)

    def step() -> float:
        p = built.probs()
        loss, value = surrogate(p)
        extra = built.extra(p)
        if extra is not None:
            loss, value = loss + extra.mean(), value + extra.mean()
        loss.backward()
        return float(value.detach())

    return _case(built, step)


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    serve({"library": library, "by_hand": by_hand}, ("torch", "storchastic", "numpy"))
