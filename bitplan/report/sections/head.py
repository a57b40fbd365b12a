"""The top of the page: whether it worked, and the figures that count."""

from __future__ import annotations

from typing import Any

from bitplan.report.facts import folder_name
from bitplan.report.html import Figures, Html, element, joined
from bitplan.result import MISSED, PLANNED

COUNTS = ("No", "The", "Both", "All three", "All four", "All five", "All six")


def verdict(facts: dict[str, Any]) -> str:
    """In a few words, whether the targets are met."""
    count, planned = len(facts["targets"]), facts["status"] == PLANNED
    if facts["status"] == MISSED:
        missed = sum(target["met"] is False for target in facts["targets"])
        if count == 1:
            return "The target is missed"
        return f"{missed} of {count} targets missed"
    if not count:
        return "Planned without limits" if planned else "Carried out without limits"
    which = f"{COUNTS[min(count, 6)]} target{'s' if count > 1 else ''}"
    verb = "are" if count > 1 else "is"
    return f"{which} {verb} met" if not planned else f"{which} {verb} predicted to be met"


def title(facts: dict[str, Any]) -> str:
    """The page's title."""
    return f"{verdict(facts)} · {folder_name(facts)}"


def header(figures: Figures) -> Html:
    """Verdict, one sentence, and up to four figures."""
    facts = figures.facts
    return joined(
        element("p", f"bitplan report · {folder_name(facts)}", class_="eyebrow"),
        element("h1", verdict(facts)),
        element("p", *_sentence(figures), class_="lead"),
        element("div", *_tiles(figures), class_="tiles"),
    )


def _sentence(figures: Figures) -> list[str]:
    facts = figures.facts
    count = f"{len(facts['layers'])} layers"
    if facts["status"] == PLANNED:
        return [f"{count} were given an encoding; nothing was carried out or measured yet."]
    if facts["misses"]:
        return [f"Measured on the finished artifact: {'; '.join(facts['misses'])}."]
    worth = facts["worth"]
    if worth and worth["kind"] == "accuracy":
        return [
            f"{count} were given an encoding. Accuracy is ",
            figures("worth.value", "percent"),
            ", in full precision ",
            figures("worth.full_precision", "percent"),
            ".",
        ]
    if worth:
        return [
            f"{count} were given an encoding. ",
            figures("worth.value", "percent"),
            " of the answers stay the same.",
        ]
    return [f"{count} were given an encoding."]


def _tiles(figures: Figures) -> list[Html]:
    rows = {row["key"]: number for number, row in enumerate(figures.facts["quantities"])}
    tiles = [
        _quantity(figures, rows["file_bytes"], "File", "size"),
        _quantity(figures, rows["latency"], "Latency", "ms"),
    ]
    worth = figures.facts["worth"]
    if worth:
        below = _worth_note(figures)
        tiles.append(_tile(worth["kind"].capitalize(), figures("worth.value", "percent"), below))
    tiles.append(
        _quantity(figures, rows["loss"], figures.value(f"quantities.{rows['loss']}.name").capitalize(), "number")
    )
    return tiles


def _worth_note(figures: Figures) -> Html:
    worth = figures.facts["worth"]
    if worth["kind"] == "agreement":
        return joined("with full precision")
    if worth.get("standard_error") is not None:
        return joined("drop ", figures("worth.drop", "percent"), " ± ", figures("worth.standard_error", "percent"))
    return joined("full precision ", figures("worth.full_precision", "percent"))


def _quantity(figures: Figures, number: int, name: str, style: str) -> Html:
    """The measured figure with the predicted one below, or the predicted one alone."""
    path = f"quantities.{number}"
    if figures.value(f"{path}.measured") is None:
        return _tile(name, figures(f"{path}.predicted", style), joined("predicted"))
    below = joined("predicted ", figures(f"{path}.predicted", style))
    return _tile(name, figures(f"{path}.measured", style), below)


def _tile(name: str, figure: Html, below: Html) -> Html:
    return element("div", element("p", name), element("strong", figure), element("p", below), class_="tile")
