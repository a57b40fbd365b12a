"""Drawings as PNG, by Pillow, in the light colours: drawn at SCALE times FINER the size and made smaller, which smooths
the edges."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps

from bitplan.report.drawing import END, MARGIN, MIDDLE, Circle, Drawing, Line, Mark, Polygon, Rect, Shape, Text
from bitplan.report.palette import PALETTE

SCALE, FINER = 2, 2
FACTOR = SCALE * FINER
COLOURS = 128
"""Drawings have few colours; a palette makes the files small."""


def png(*drawings: Drawing) -> bytes:
    """Drawings, side by side with a margin around each, as the bytes of a PNG file of SCALE times their size."""
    parts = [_picture(drawing) for drawing in drawings]
    whole = Image.new("RGB", (sum(p.width for p in parts), max(p.height for p in parts)), PALETTE["paper"][0])
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width
    buffer = io.BytesIO()
    whole.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(buffer, "PNG")
    return buffer.getvalue()


def _picture(drawing: Drawing) -> Image.Image:
    size = (round(drawing.width * FACTOR), round(drawing.height * FACTOR))
    picture = Image.new("RGB", size, PALETTE["paper"][0])
    canvas = ImageDraw.Draw(picture)
    for item in drawing.items:
        for shape in item.shapes if isinstance(item, Mark) else (item,):
            _draw(canvas, shape)
    small = picture.resize((size[0] // FINER, size[1] // FINER), Image.Resampling.BOX)
    return ImageOps.expand(small, MARGIN * SCALE, PALETTE["paper"][0])


def _draw(canvas: ImageDraw.ImageDraw, shape: Shape) -> None:
    match shape:
        case Rect(x, y, width, height, fill, stroke, opacity, radius):
            box = _scaled(x, y, x + max(width, 0), y + max(height, 0))
            paint = _colour(fill, opacity), _colour(stroke)
            canvas.rounded_rectangle(box, radius * FACTOR, *paint, width=FACTOR if stroke else 0)
        case Line(points, stroke, width):
            canvas.line(_scaled(*(c for p in points for c in p)), _colour(stroke), round(width * FACTOR), "curve")
        case Polygon(points, fill, stroke, width):
            corners = _scaled(*(c for p in points for c in p))
            canvas.polygon(corners, _colour(fill), _colour(stroke), round(width * FACTOR) if stroke else 0)
        case Circle(x, y, radius, fill, stroke, width):
            outer = radius + width / 2 if stroke else radius  # the outline lies on the edge, as in SVG
            box = _scaled(x - outer, y - outer, x + outer, y + outer)
            canvas.ellipse(box, _colour(fill), _colour(stroke), round(width * FACTOR) if stroke else 0)
        case Text(x, y, text, anchor, fill, size, bold, halo):
            where = {MIDDLE: "ms", END: "rs"}.get(anchor, "ls")
            place = (x * FACTOR, y * FACTOR)
            if halo:
                around = _colour("paper")
                canvas.text(place, text, around, _font(size), where, stroke_width=2 * FACTOR, stroke_fill=around)
            canvas.text(place, text, _colour(fill), _font(size), where, stroke_width=1 if bold else 0)


@cache
def _font(size: float) -> Any:
    return ImageFont.load_default(size * FACTOR)


def _scaled(*numbers: float) -> list[float]:
    return [number * FACTOR for number in numbers]


def _colour(role: str, opacity: float = 1.0) -> tuple[int, ...] | None:
    """The colour of a role, mixed with that of the paper; None where nothing is to be painted."""
    if not role:
        return None
    colour, paper = ImageColor.getrgb(PALETTE[role][0]), ImageColor.getrgb(PALETTE["paper"][0])
    return tuple(round(opacity * c + (1 - opacity) * p) for c, p in zip(colour, paper, strict=True))
