"""What an estimator returns is checked while it is traced: a field of another shape would be broadcast, and silently wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NoReturn, get_args

import jax
import numpy as np

from mcgrad._arguments import broadcasts_to, describe
from mcgrad._types import Shape
from mcgrad.program.draw import Draw, check_value, kind_of, placeholder
from mcgrad.program.representations import (
    Alternatives,
    Flow,
    Replicates,
    Representation,
    Reweighted,
    SignedPoints,
    WeightedPoint,
)

ANY = get_args(Representation)
LOCAL = (Flow, WeightedPoint)


def check_returned(found: Any, draw: Draw, author: str, kinds: Sequence[type] = ANY) -> Any:
    """What an estimator returned; refuses what is of none of some kinds, or has a field of another shape than the draw asks for.

    Args:
        found: what an estimator returned for the draw.
        draw: the draw.
        author: the name of the estimator's class.
        kinds: what it may return here.

    Raises:
        TypeError: for something of another kind.
        ValueError: for a field of another shape or dtype.
    """
    if not isinstance(found, tuple(kinds)):
        *names, last = [f"`{kind.__name__}`" for kind in kinds]
        method = "alternatives(draw, x)" if Alternatives in kinds else "represent(draw)"
        known = isinstance(found, ANY)
        got = f"`{type(found).__name__}`" if known else describe(found)
        way_out = "Make one of these of it; `help(mcgrad.program)` lists them."
        if known:
            way_out = "It needs the rest of the program, which a `mcgrad.LocalEstimator` does without: subclass `mcgrad.Estimator`."
        raise TypeError(
            f"`{author}.{method}` must return {', '.join(names)}{' or ' if names else ''}{last} for {draw.site.describe()}, got "
            f"{got}. {way_out}"
        )
    _Check(found, draw, author).fields()
    return found


@dataclasses.dataclass(frozen=True)
class _Check:
    """The shapes of what an estimator of the class `author` returned for a draw."""

    found: Any
    draw: Draw
    author: str

    def fields(self) -> None:
        found, plates = self.found, self.draw.plates
        names = {field.name for field in dataclasses.fields(found)}
        if "value" in names:
            check_value(self.draw.site, found.value, f"`{type(found).__name__}(value=...)` of `{self.author}`")
        if isinstance(found, (WeightedPoint, Replicates)):
            self._baseline(found.baseline)
        if isinstance(found, WeightedPoint):
            way_out = "Keep one number for each entry, as `draw.log_prob(x)` does, and take no sum."
            self._numbers("log_weight", plates, way_out)
            if found.control is not None:
                self._numbers("control", plates, way_out)
        points = "values" if isinstance(found, Alternatives) else "points"
        if points not in names:
            return
        n = self._points(points)
        if isinstance(found, Alternatives) and found.against is not None:
            self._points("against", n)
        if isinstance(found, Reweighted):
            joint = tuple(1 if k in self.draw.mixed_axes else size for k, size in enumerate(plates))
            way_out = "Along axes that a cost mixes, `draw.mixed_axes`, a point sets all entries together: size one."
            self._numbers("weights", (n, *joint), way_out)
            if found.mixing is not None:
                self._numbers("mixing", (n, n, *joint), way_out)
            names.remove("weights")
        if isinstance(found, SignedPoints) and found.log_weight is not None:
            way_out = "Keep one number for each entry, as `draw.log_prob(x)` does, and take no sum."
            for name in ("log_weight", "slope"):
                self._numbers(name, plates, way_out)
        for name in sorted(names & {"weights", "log_weights", "coefficients", "sizes"}):
            way_out = f"The axis of the points comes first: `{name}[None]` for a single one."
            self._numbers(name, (n, *plates), way_out)

    def _points(self, name: str, number: int | None = None) -> int:
        """The number of points in a field, each of the shape of the draw; refuses another number than that given."""
        leaves, tree = jax.tree.flatten(getattr(self.found, name))
        wanted, own_tree = jax.tree.flatten(placeholder(self.draw.site))
        got = [np.shape(leaf) for leaf in leaves]
        n = number or (got[0][0] if got and got[0] else "n")
        if tree != own_tree or got != [(n, *leaf.shape) for leaf in wanted]:
            shapes = " and ".join(str(("n", *leaf.shape)).replace("'", "") for leaf in wanted)
            self._refuse(
                name,
                f"have shape {shapes}, n points of the shape of",
                " and ".join(map(str, got)) or "nothing",
                f"The axis of the points comes first: `{name}[None]` for a single one.",
            )
        for leaf, own in zip(leaves, wanted, strict=True):
            if kind_of(leaf) != kind_of(own):
                self._refuse(name, f"be {kind_of(own)}, as", kind_of(leaf), "Convert them with `astype`.")
        return int(n)

    def _numbers(self, name: str, shape: Shape, way_out: str) -> None:
        value = getattr(self.found, name)
        is_array = isinstance(value, (jax.Array, np.ndarray, np.generic, float, int))
        if not is_array or np.shape(value) != shape:
            front = "" if len(shape) == self.draw.num_plates else "the points and then "
            must = f"be an array of shape {shape}, {front}`draw.plates`, for"
            self._refuse(name, must, f"shape {np.shape(value)}" if is_array else describe(value), way_out)

    def _baseline(self, baseline: Any) -> None:
        plates = self.draw.plates
        if isinstance(baseline, str):
            fits = baseline == "leave_one_out"
        else:
            fits = baseline is None or broadcasts_to(np.shape(baseline), plates)
        if not fits:
            got = repr(baseline) if isinstance(baseline, str) else f"shape {np.shape(baseline)}"
            must = f'be "leave_one_out", None or an array that broadcasts to `draw.plates`, {plates}, for'
            self._refuse("baseline", must, got, "Pass one of these.")

    def _refuse(self, name: str, must: str, got: str, way_out: str) -> NoReturn:
        raise ValueError(
            f"`{type(self.found).__name__}({name}=...)` of `{self.author}` must {must} {self.draw.site.describe()}, got "
            f"{got}. {way_out}"
        )
