"""A place that costs are blind behind: what is seen of it, and how messages speak of it."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeAlias

from mcgrad.program.primitives import is_coarse
from mcgrad.program.site import Site
from mcgrad.program.trace import Equation

Source: TypeAlias = "Site | Equation | Literal['parameter']"
"""A draw; the operation that makes raw random bits; or what is not known before the run, so that it may be differentiated."""

PARAMETER: Literal["parameter"] = "parameter"


@dataclasses.dataclass(frozen=True, eq=False)
class BlindWay:
    """A gate that costs are blind behind.

    Attributes:
        gate: the operation.
        place: where that is: in its bodies, if it is a loop or branch.
        roots: the comparisons, searches, roundings that it goes by.
        sources: what these are made of.
        cut: the derivative is cut there; otherwise the value jumps.
        certain: whether it was seen to jump; otherwise no place of a jump was found.
        met: whether, if it was not seen to jump, a place was found where it might, and trying did not tell.
    """

    gate: Equation
    place: Equation
    roots: frozenset[Equation]
    sources: frozenset[Any]
    cut: bool
    certain: bool
    met: bool

    def describe(self) -> str:
        """How messages speak of it."""
        what = _WORDS.get(self.place.name, f"`{self.place.name}`")
        if self.place.name == "convert_element_type" and is_coarse(self.place):
            what = _WORDS["reduce_precision"]
        does = "cuts the derivative" if self.cut else "jumps" if self.certain else "may jump"
        return f"{what} at {self.place.line} {does}"


_WORDS = {
    "convert_element_type": "a number made of a comparison or rounded to an integer",
    "reduce_precision": "a number rounded to few bits",
    "select_n": "`where`",
    "atan2": "`arctan2`",
    **dict.fromkeys(("div", "integer_pow", "pow", "rsqrt"), "a division by what becomes zero"),
}
