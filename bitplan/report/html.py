"""HTML as text: elements whose content is escaped unless it is HTML already, and figures that are looked up."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from bitplan.report.text import written

VOID = ("br", "col", "hr")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, *content: str | None, **attributes: object) -> Html:
    """An element. Attributes that are None or False are left out, True has no value; `class_` and `for_` are `class` and
    `for`, other underscores are hyphens."""
    head = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        head.append(key if value is True else f'{key}="{escape(str(value))}"')
    opened = f"<{' '.join(head)}>"
    return Html(opened if name in VOID else f"{opened}{joined(*content)}</{name}>")


def joined(*content: str | None) -> Html:
    """Pieces one after the other; None is nothing."""
    return Html("".join(piece if isinstance(piece, Html) else escape(piece) for piece in content if piece is not None))


class Figures:
    """Shows figures of the facts by their path, so that no page can show one that the facts do not hold."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts

    def value(self, path: str) -> Any:
        """What lies at `layers.3.bytes`. Raises KeyError or IndexError where nothing does."""
        found: Any = self.facts
        for part in path.split("."):
            found = found[int(part)] if isinstance(found, list) else found[part]
        return found

    def __call__(self, path: str, style: str) -> Html:
        """The figure as <data>, with its exact value and its path; a dash where it is null."""
        value = self.value(path)
        if value is None:
            return element("span", written(None, style), class_="none")
        return element("data", written(value, style), value=json.dumps(value), data_of=path)


def table(caption: str, heads: list[str], rows: list[list[str | None]], *, texts: int = 1) -> Html:
    """A table that scrolls by itself where it is too wide, also by keyboard; its first `texts` columns are text."""

    def cell(number: int, content: str | None) -> Html:
        if number == 0:
            return element("th", content, scope="row")
        return element("td", content, class_=None if number < texts else "number")

    head = [
        element("th", text, scope="col", class_=None if number < texts else "number")
        for number, text in enumerate(heads)
    ]
    body = [element("tr", *(cell(number, content) for number, content in enumerate(row))) for row in rows]
    return element(
        "div",
        element(
            "table",
            element("caption", caption),
            element("thead", element("tr", *head)),
            element("tbody", *body),
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=caption,
    )


def pairs_list(rows: list[tuple[str, str | None]]) -> Html:
    """Names and values; rows without a value are left out."""
    return element(
        "dl", *(joined(element("dt", name), element("dd", value)) for name, value in rows if value is not None)
    )
