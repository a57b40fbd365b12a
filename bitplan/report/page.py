"""The report as one HTML page that loads nothing: styles, script, plots and data are in it, and its policy forbids more."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib import resources
from string import Template
from typing import Any

from bitplan.report.charts import charts
from bitplan.report.html import Figures, element, joined
from bitplan.report.palette import shape_classes, variables
from bitplan.report.sections import SECTIONS, Section
from bitplan.report.sections.head import header, title


def page(facts: dict[str, Any]) -> str:
    """The page's text. Every figure of it is taken from `facts`, which it holds as JSON."""
    figures, drawings = Figures(facts), charts(facts)
    sections = [made for make in SECTIONS if (made := make(figures, drawings)) is not None]
    style = variables() + shape_classes() + _resource("page.css")
    script = _resource("page.js")
    body = joined(
        element("header", header(figures), _contents(sections)),
        element("main", *(section.html for section in sections)),
        element("footer", f"Written by bitplan {facts['provenance']['bitplan']} on {facts['created']}."),
    )
    return Template(_resource("page.html")).substitute(
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'",
        version=escape(facts["provenance"]["bitplan"]),
        title=escape(title(facts)),
        style=style,
        body=body,
        # a closing tag in a layer's name must not end the script
        data=json.dumps(facts, allow_nan=False).replace("<", "\\u003c"),
        script=script,
    )


def _contents(sections: list[Section]) -> str:
    links = [element("li", element("a", section.title, href=f"#{section.name}")) for section in sections]
    return element("nav", element("ul", *links), aria_label="Contents")


def _resource(name: str) -> str:
    return (resources.files("bitplan.report") / name).read_text("utf-8")


def _hash(text: str) -> str:
    """How a content security policy names an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
