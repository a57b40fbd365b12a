"""Explanations of plans as text tables."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from bitplan.optimizer.explain import LayerNote, LimitNote, PlanExplanation
from bitplan.targets import format_bytes

COUNTED = ("bytes", "memory")


def tables(found: PlanExplanation) -> Group:
    """Limits, layers and alternatives below each other. `others`: layers that change beside the runner-up; `dominated`:
    options of a layer's menu that cost no less of anything than one that is kept."""
    parts: list[Table | Text] = []
    if found.limits:
        parts.append(_limits(found))
    parts += [_layers(found), _alternatives(found)]
    if not found.finished:
        parts.append(Text("Time ran out before every question was answered; raise --time-limit."))
    return Group(*parts)


def _table(title: str, *headings: str) -> Table:
    """Long names and amounts go on in the next line: nothing is cut off."""
    return Table(*(Column(heading, overflow="fold") for heading in headings), title=title, box=SIMPLE_HEAD)


def _limits(found: PlanExplanation) -> Table:
    table = _table("limits", "limit", "of", "used", "slack", "binds", "+1 %", "+5 %", "next step")
    for limit in found.limits:
        words = {True: "yes", False: "no", None: "not settled"}[limit.binds]
        gains = [_change(found, gain.objective) for gain in limit.gains.values()]
        amounts = [_amount(limit.target, value) for value in (limit.limit, limit.used, limit.slack)]
        table.add_row(limit.target, *amounts, words, *gains, _step(found, limit))
    return table


def _step(found: PlanExplanation, limit: LimitNote) -> str:
    if limit.next_step is None:
        return "-"
    more = limit.next_step.limit - limit.limit
    # a fraction of the resolution is left between a limit in units and as it was typed
    return f"+{_amount(limit.target, max(more, 0.0))}: {_change(found, limit.next_step.objective)}"


def _layers(found: PlanExplanation) -> Table:
    table = _table("layers", "layer", "variant", "runner-up", "costs", "others", "dominated", "pinned")
    for layer in found.layers:
        table.add_row(layer.layer, layer.variant, *_runner_up(found, layer), str(len(layer.dominated)), layer.pinned)
    return table


def _runner_up(found: PlanExplanation, layer: LayerNote) -> tuple[str, str, str]:
    if layer.runner_up is None or layer.objective is None:
        return "-", "-", "-"
    return layer.runner_up, _change(found, layer.objective, proven=layer.proven), str(layer.changed)


def _alternatives(found: PlanExplanation) -> Table:
    table = _table("the next best plans", "plan", found.target, "difference", "instead")
    table.add_row("1", _amount(found.target, found.objective), "", "this plan")
    for number, other in enumerate(found.alternatives, 2):
        instead = ", ".join(f"{layer} {a} -> {b}" for layer, (a, b) in other.differences.items())
        change = _change(found, other.objective, proven=other.proven)
        table.add_row(str(number), _amount(found.target, other.objective), change, instead)
    return table


def _change(found: PlanExplanation, objective: float, *, proven: bool = True) -> str:
    """How an objective differs from the plan's; `proven` False: it may differ less."""
    difference = objective - found.objective
    if difference == 0:
        return "nothing"
    share = f" ({100 * difference / abs(found.objective):+.2g} %)" if found.objective else ""
    sign = "+" if difference > 0 else "-"
    return f"{'' if proven else 'at most '}{sign}{_amount(found.target, abs(difference))}{share}"


def _amount(target: str, value: float) -> str:
    if target in COUNTED:
        return f"{value:,.0f} B ({format_bytes(value)})" if value >= 1000 else f"{value:,.0f} B"
    if target == "latency":
        return f"{1e3 * value:.4g} ms" if value >= 1e-4 else f"{1e6 * value:.3g} us"
    return f"{value:,.0f}" if target == "full_precision_weights" else f"{value:.3g}"
