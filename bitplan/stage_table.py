"""What a policy was at each stage of its life: planned, recovered, fine-tuned, replanned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from bitplan.policies.policy import Policy
from bitplan.profiles.metrics import METRICS
from bitplan.result import Outcome
from bitplan.targets import format_bytes

Stage = Mapping[str, Any]
"""By STAGE_FIGURES; None where unknown."""

TITLES = {
    "planned": "plan (predicted)",
    "recovered": "recovered",
    "finetuned": "fine-tuned",
    "replanned": "replanned",
    "finetuned_again": "fine-tuned again",
}
"""By the name of a stage in JSON, in the order of a policy's life."""
STAGE_FIGURES = ("file_bytes", "latency_ms", "loss", "agreement", "accuracy")
NOTHING_SEEN = {"agreement": None, "accuracy": None}


def planned_stage(policy: Policy) -> dict[str, Any]:
    """What planning predicted; no loss where it is a score that no link has calibrated, which measured losses beside it
    would be mistaken for."""
    predicted = policy.predicted
    found = {name: predicted.get(name) for name in ("file_bytes", "latency_ms", "loss")} | NOTHING_SEEN
    calibrated = policy.settings.get("loss_scale") in (None, *METRICS)
    return found if calibrated else found | {"loss": None}


def measured_stage(outcome: Outcome) -> dict[str, Any]:
    """What was measured, on the test images and in a fresh process."""
    evaluation = outcome.evaluation
    return {
        "file_bytes": outcome.file_bytes,
        "latency_ms": outcome.latency.median if outcome.latency else None,
        "loss": evaluation.loss if evaluation else None,
        "agreement": evaluation.agreement if evaluation else None,
        "accuracy": evaluation.accuracy if evaluation else None,
    }


def stage_table(stages: Mapping[str, Stage], title: str) -> Table:
    """The stages that there are, one a row; accuracy where labels are known."""
    labelled = any(stage.get("accuracy") is not None for stage in stages.values())
    table = Table(title=title, title_style="bold")
    for heading in ("", "file", "ms", "loss", "agreement", *(["accuracy"] if labelled else [])):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=not heading)
    for name, stage in stages.items():
        size, latency, loss = (stage.get(key) for key in ("file_bytes", "latency_ms", "loss"))
        shares = [stage.get("agreement"), *([stage.get("accuracy")] if labelled else [])]
        table.add_row(
            TITLES[name],
            "-" if size is None else format_bytes(size),
            "-" if latency is None else f"{latency:.3f}",
            "-" if loss is None else f"{loss:.4f}",
            *("-" if share is None else f"{100 * share:.2f} %" for share in shares),
        )
    return table
