"""What the solver chose among, what it knew of pairs, what recovery did, and the certificate."""

from __future__ import annotations

from bitplan.report.drawing import Drawing
from bitplan.report.html import Figures, Html, element, joined, pairs_list, table
from bitplan.report.sections.section import Section, note, plot, plots, section
from bitplan.report.text import BY_UNIT


def frontier(figures: Figures, drawings: dict[str, Drawing]) -> Section | None:
    """Both panels, and the points as a table that can be opened."""
    found = figures.facts["frontier"]
    if found is None:
        return None
    uniform = [point for point in found["points"] if point["uniform"]]
    beaten = sum(bool(point["dominated_by"]) for point in uniform)
    where = (
        f"The plan is the point {found['chosen']}."
        if found["chosen"]
        else "The plan was made under limits of its own and is none of the points."
    )
    rows: list[list[str | None]] = [
        [
            point["name"],
            figures(f"frontier.points.{number}.file_bytes", "count"),
            figures(f"frontier.points.{number}.latency", "number"),
            figures(f"frontier.points.{number}.loss", "number"),
            figures(f"frontier.points.{number}.gap", "share"),
            "efficient" if point["efficient"] else point["dominated_by"] and f"dominated by {point['dominated_by']}",
        ]
        for number, point in enumerate(found["points"])
    ]
    heads = ["point", "bytes", "ms", "loss", "gap", ""]
    return section(
        "frontier",
        "Frontier",
        element(
            "p",
            f"Circles are plans that nothing dominates; {beaten} of {len(uniform)} uniform policies (diamonds) are "
            f"dominated. {where} A circle that looks worse in one plot is better in the other.",
        ),
        plots(drawings.get("frontier-bytes"), drawings.get("frontier-latency")),
        None if found["finished"] else note("Time ran out before all points were found."),
        element(
            "details",
            element("summary", f"All {len(rows)} points"),
            table("Points of the frontier, all figures predicted", heads, rows),
        ),
    )


def pairs(figures: Figures, drawings: dict[str, Drawing]) -> Section | None:
    """The heatmap."""
    if "pairs" not in drawings:
        return None
    found = figures.facts["pairs"]
    return section(
        "pairs",
        "Pairs of layers",
        element(
            "p",
            "What two layers in their chosen encodings cost together, beyond what each costs alone. Below zero (dash) they "
            "make up for each other.",
        ),
        plot(drawings["pairs"]),
        note(
            f"Measured by the estimator {found['estimator']}; the strongest is ",
            figures("pairs.largest", "number"),
            ".",
        ),
    )


def recovery(figures: Figures, drawings: dict[str, Drawing]) -> Section | None:
    """The loss behind each step."""
    if "recovery" not in drawings:
        return None
    steps = figures.facts["recovery"]
    rows: list[list[str | None]] = [
        [step["step"], figures(f"recovery.{number}.held_back_loss", "number"), "kept" if step["kept"] else "left out"]
        for number, step in enumerate(steps)
    ]
    return section(
        "recovery",
        "Recovery",
        element("p", "A step is kept if it lowers the loss on calibration images that it did not see."),
        plot(drawings["recovery"]),
        table("Steps of recovery", ["step", "loss", ""], rows),
    )


def solver(figures: Figures, drawings: dict[str, Drawing]) -> Section:
    """The certificate in words and figures."""
    found = figures.facts["solver"]
    style = BY_UNIT.get(found["unit"], "number")
    unit = f" {found['unit']}" if style == "number" and found["unit"] else ""
    words = {
        "optimal": "No policy on the menu is predicted to be better within the limits: the bound is proven.",
        "feasible": "The search ended before the best policy was proven; the bound says how far off it can be.",
        "given": "The policy was not solved for: it is uniform, or was edited by hand.",
    }
    rows: list[tuple[str, str | None]] = [
        ("status", found["status"]),
        ("objective", _known(figures, "objective", style, unit)),
        ("proven bound", _known(figures, "bound", style, unit)),
        ("gap", _known(figures, "gap", "percent")),
        ("time", _known(figures, "seconds", "seconds") if found["solver"] else None),
        ("solver", found["solver"] or None),
        ("seed", _known(figures, "seed", "count")),
        ("time limit", _known(figures, "time_limit", "seconds")),
    ]
    tighter = found["solved_for"] and note(
        "The limits were made tighter than the targets for what measuring had shown."
    )
    return section("solver", "Solver", element("p", words.get(found["status"], "")), pairs_list(rows), tighter)


def _known(figures: Figures, key: str, style: str, unit: str = "") -> Html | None:
    if figures.value(f"solver.{key}") is None:
        return None
    return joined(figures(f"solver.{key}", style), unit)
