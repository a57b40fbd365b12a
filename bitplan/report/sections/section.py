"""What sections are made of."""

from __future__ import annotations

from dataclasses import dataclass

from bitplan.report.drawing import Drawing, Mark, svg
from bitplan.report.html import Html, element


@dataclass(frozen=True, slots=True)
class Section:
    """`name` is its anchor, `title` its entry in the contents."""

    name: str
    title: str
    html: Html


def section(name: str, title: str, *content: str | None) -> Section:
    heading = element("h2", title, id=f"{name}-title")
    return Section(name, title, element("section", heading, *content, id=name, aria_labelledby=f"{name}-title"))


def plot(drawing: Drawing | None, *, wide: bool = True, small: bool = False, hint: str = "") -> Html | None:
    """A drawing as a figure. `wide`: it scrolls on a narrow screen, for made smaller it could not be read; `small`: it
    does not fill the column; `hint` stands below it until a mark is pointed at."""
    if drawing is None:
        return None
    picture = Html(svg(drawing))
    marked = any(isinstance(item, Mark) for item in drawing.items)
    return element(
        "figure",
        element("div", picture, class_="scroll wide", tabindex=None) if wide else picture,
        element("output", hint, class_="readout") if marked else None,
        class_="small" if small else None,
    )


def plots(*drawings: Drawing | None) -> Html:
    """Drawings side by side where there is room."""
    return element("div", *(plot(drawing, wide=False) for drawing in drawings), class_="plots")


def note(*content: str | None) -> Html:
    return element("p", *content, class_="note")
