"""A picture of boxes in two columns with lines between them, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT, _ROOM, _GAP, _EDGE = 270, 62, 250, 22, 12  # of a box; between columns, between boxes, at the edge


class Line(NamedTuple):
    """From the box `left` to the box `right` of the other column."""

    left: int
    right: int
    text: str
    color: str
    dashed: bool


def svg(title: str, left: Sequence[tuple[str, ...]], right: Sequence[tuple[str, ...]], lines: Sequence[Line]) -> str:
    """Boxes are given as lines of text, the first of them bold; `title` is what is read aloud."""
    rows = max(1, len(left), len(right))
    width, height = 2 * (_EDGE + _WIDTH) + _ROOM, 2 * _EDGE + rows * (_HEIGHT + _GAP) - _GAP
    places = [
        [(x, _EDGE + (row + (rows - len(boxes)) / 2) * (_HEIGHT + _GAP)) for row in range(len(boxes))]
        for x, boxes in ((_EDGE, left), (_EDGE + _WIDTH + _ROOM, right))
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}" '
        'font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height:g}" fill="white"/>',
    ]
    for line in lines:
        parts += _line(line, places[0][line.left], places[1][line.right])
    for place, box in zip(sum(places, []), (*left, *right), strict=True):
        parts += _box(*place, box)
    return "\n".join([*parts, "</svg>"])


def _line(line: Line, left: tuple[float, float], right: tuple[float, float]) -> Iterator[str]:
    (x0, y0), (x1, y1) = (left[0] + _WIDTH, left[1] + _HEIGHT / 2), (right[0], right[1] + _HEIGHT / 2)
    dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
    yield f'<line x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}" stroke="{line.color}" stroke-width="1.6"{dashes}/>'
    # Nearer to the right, where lines from several boxes on the left are still apart; white below, to be read on other lines.
    x, y = (x0 + 2 * x1) / 3, (y0 + 2 * y1) / 3 - 4
    for below in (' stroke="white" stroke-width="4"', ""):
        yield f'<text x="{x:g}" y="{y:g}" text-anchor="middle"{below}>{escape(line.text)}</text>'


def _box(x: float, y: float, texts: tuple[str, ...]) -> Iterator[str]:
    yield f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="white" stroke="#444444"/>'
    for n, text in enumerate(texts):
        shown = text if len(text) <= 40 else f"{text[:39]}…"
        bold = "" if n else ' font-weight="bold"'
        yield f'<text x="{x + 10:g}" y="{y + 18 + 17 * n:g}"{bold}>{escape(shown)}</text>'
