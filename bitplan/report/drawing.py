"""Drawings made of a few shapes, and their SVG. Colours are roles of the palette; lengths are pixels from top left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from bitplan.report.palette import shape_classes, variables

FONT = "system-ui, sans-serif"
MARGIN = 12
"""Pixels around a drawing in a file of its own."""
START, MIDDLE, END = "start", "middle", "end"


@dataclass(frozen=True, slots=True)
class Rect:
    x: float
    y: float
    width: float
    height: float
    fill: str = ""
    stroke: str = ""
    opacity: float = 1.0
    radius: float = 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """A line through two or more points."""

    points: Sequence[tuple[float, float]]
    stroke: str = "line"
    width: float = 1.0


@dataclass(frozen=True, slots=True)
class Polygon:
    points: Sequence[tuple[float, float]]
    fill: str = ""
    stroke: str = ""
    width: float = 1.0


@dataclass(frozen=True, slots=True)
class Circle:
    x: float
    y: float
    radius: float
    fill: str = ""
    stroke: str = ""
    width: float = 1.0


@dataclass(frozen=True, slots=True)
class Text:
    """One line; `y` is the base line. `halo`: kept apart from what it lies upon."""

    x: float
    y: float
    text: str
    anchor: str = START
    fill: str = "ink"
    size: float = 12.0
    bold: bool = False
    halo: bool = False


Shape = Rect | Line | Polygon | Circle | Text


@dataclass(frozen=True, slots=True)
class Mark:
    """Shapes that stand for one datum, which `label` puts in words."""

    label: str
    shapes: Sequence[Shape]


@dataclass(frozen=True)
class Drawing:
    """`name` is the stem of its files; `description` says what is drawn, for those who do not see it."""

    name: str
    title: str
    description: str
    width: float
    height: float
    items: Sequence[Shape | Mark] = field(default_factory=tuple)


def svg(drawing: Drawing, *, alone: bool = False) -> str:
    """The drawing as an SVG element. `alone`: a file of its own, with its colours; else the page has them."""
    name = f"plot-{drawing.name}"
    margin = MARGIN if alone else 0
    width, height = drawing.width + 2 * margin, drawing.height + 2 * margin
    size = f'width="{width:g}" height="{height:g}" ' if alone else ""
    marked = any(isinstance(item, Mark) for item in drawing.items)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-margin} {-margin} {width:g} {height:g}" {size}'
        f'role="{"group" if marked else "img"}" aria-labelledby="{name}-title {name}-desc" font-family="{FONT}">'
        f'<title id="{name}-title">{escape(drawing.title)}</title>'
        f'<desc id="{name}-desc">{escape(drawing.description)}</desc>'
    )
    if alone:
        head += f"<style>{variables()}{shape_classes()}</style>"
        head += _shape(Rect(-margin, -margin, width, height, "paper"))
    return head + "".join(map(_item, drawing.items)) + "</svg>"


def _item(item: Shape | Mark) -> str:
    if not isinstance(item, Mark):
        return _shape(item)
    shapes = "".join(map(_shape, item.shapes))
    return f'<g class="mark" role="img"><title>{escape(item.label)}</title>{shapes}</g>'


def _shape(shape: Shape) -> str:
    match shape:
        case Rect(x, y, width, height, fill, stroke, opacity, radius):
            extra = f' rx="{radius:g}"' if radius else ""
            extra += f' fill-opacity="{opacity:.3g}"' if opacity < 1 else ""
            return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{extra}{_paint(fill, stroke)}/>'
        case Line(points, stroke, width):
            return f'<polyline points="{_points(points)}"{_paint("", stroke, width)}/>'
        case Polygon(points, fill, stroke, width):
            return f'<polygon points="{_points(points)}"{_paint(fill, stroke, width)}/>'
        case Circle(x, y, radius, fill, stroke, width):
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"{_paint(fill, stroke, width)}/>'
        case Text(x, y, text, anchor, fill, size, bold, halo):
            weight = ' font-weight="600"' if bold else ""
            where = f' text-anchor="{anchor}"' if anchor != START else ""
            where += ' paint-order="stroke" stroke-linejoin="round"' if halo else ""
            outline = ("paper", 3.0) if halo else ("", 1.0)
            return (
                f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}"{where}{weight}{_paint(fill, *outline)}>'
                f"{escape(text)}</text>"
            )


def _paint(fill: str, stroke: str, width: float = 1.0) -> str:
    classes = [f"f-{fill}"] if fill else []
    classes += [f"s-{stroke}"] if stroke else []
    text = f' class="{" ".join(classes)}"'
    if not fill:
        text += ' fill="none"'
    return text + (f' stroke-width="{width:g}"' if stroke and width != 1 else "")


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
