"""What the main job hands back: one object for machines (`--json`), one table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from bitplan.evaluate import Evaluation
from bitplan.network import Network
from bitplan.policies.policy import Policy
from bitplan.recovery_names import Gain
from bitplan.targets import Targets, format_bytes

MET, MISSED, PLANNED = "met", "missed", "planned"
EXIT_CODES = {MET: 0, PLANNED: 0, MISSED: 4}


@dataclass(frozen=True, slots=True)
class MeasuredLatency:
    """Milliseconds of one inference in a fresh process: median, 10 % and 90 % quantile of the runs (at least 200) while
    the machine was least busy, and the median of all runs; `drift` is how much slower the anchor network ran in those
    runs than in the device profile."""

    median: float
    low: float
    high: float
    drift: float
    median_of_all_runs: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One network carried out: its size, speed and worth as measured. `name` heads its column."""

    name: str
    file_bytes: int
    predicted_latency_ms: float | None
    latency: MeasuredLatency | None
    evaluation: Evaluation | None
    recovery: Sequence[Gain] = ()
    """What rounding and each step of recovery came to, in their order."""


@dataclass(frozen=True)
class Result:
    """The main job's result. `misses` says in words which targets the measured artifact misses."""

    status: str
    targets: Targets
    policy: Policy
    network: Network
    outcome: Outcome | None = None
    resident_bytes: int | None = None
    misses: Sequence[str] = ()
    comparison: Sequence[Outcome] = ()
    artifact_path: Path | None = None
    policy_path: Path | None = None
    hints: Mapping[str, Any] = field(default_factory=dict)
    finetuning: Mapping[str, Any] | None = None
    """What `--finetune` came to, stage by stage (bitplan/finetuning.py)."""
    replanning: Mapping[str, Any] | None = None
    """What `optimize replan` came to (bitplan/replanning.py)."""

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.status]

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints; keys are stable, absent figures are null."""
        predicted, certificate, outcome = self.policy.predicted, self.policy.certificate, self.outcome
        evaluation = outcome.evaluation if outcome else None
        latency = outcome.latency if outcome else None
        result: dict[str, Any] = {
            "status": self.status,
            "misses": list(self.misses),
            "targets": targets_json(self.targets),
            "file_bytes": outcome.file_bytes if outcome else None,
            "predicted_file_bytes": predicted.get("file_bytes"),
            "resident_bytes": self.resident_bytes if outcome else predicted.get("resident_bytes"),
            "predicted_latency_ms": predicted.get("latency_ms"),
            "latency_estimates": self.policy.settings.get("estimates"),
            "measured_latency_ms": latency and asdict(latency),
            "loss": {
                "predicted": predicted.get("loss"),
                "predicted_scale": self.policy.settings.get("loss_scale"),
                "measured": evaluation.loss if evaluation else None,
                "measured_scale": evaluation.loss_metric if evaluation else None,
            },
            "agreement": evaluation.agreement if evaluation else None,
            "solver": {
                "status": certificate.status,
                "objective": certificate.objective,
                "bound": certificate.bound,
                "gap": certificate.gap,
                "seconds": certificate.seconds,
                "name": certificate.solver,
                "solved_for": self.policy.settings.get("solved_for"),
            },
            "policy": str(self.policy_path) if self.policy_path else None,
            "artifact": str(self.artifact_path) if self.artifact_path else None,
            "layers": self._layers(),
        }
        if evaluation and evaluation.accuracy is not None:
            result["accuracy"] = {
                "full_precision": evaluation.full_precision,
                "policy": evaluation.accuracy,
                "standard_error": evaluation.drop_standard_error,
                "images": evaluation.images,
            }
        if outcome and outcome.recovery:
            result["recovery"] = [asdict(gain) for gain in outcome.recovery]
        if self.finetuning is not None:
            result["finetuning"] = dict(self.finetuning)
        if self.replanning is not None:
            result["replanning"] = dict(self.replanning)
        if self.comparison:
            result["comparison"] = [outcome_json(other) for other in self.comparison]
        return result

    def _layers(self) -> list[dict[str, Any]]:
        estimates = self.policy.settings.get("estimates")
        estimated = estimates.get("steps", ()) if isinstance(estimates, Mapping) else ()
        counts = {node.name: self.network.weight_shape(node).count for node in self.network.layers}
        return [
            {
                "name": layer.name,
                "encoding": str(layer.variant),
                "kernel": layer.kernel,
                "bits_per_weight": round(8 * layer.bytes / counts[layer.name], 3),
                "bytes": layer.bytes,
                "latency_ms": layer.latency_ms,
                "latency_estimated": layer.name in estimated,
            }
            for layer in self.policy.layers
        ]

    def table(self) -> Table:
        """The outcomes side by side: bytes, predicted and measured milliseconds, accuracy or agreement, loss."""
        outcomes = [*self.comparison, *([self.outcome] if self.outcome else [])]
        metric = next((o.evaluation.loss_metric for o in outcomes if o.evaluation), "kl")
        labelled = any(o.evaluation and o.evaluation.accuracy is not None for o in outcomes)
        table = Table(Column("network", no_wrap=True), title="measured on this machine", title_style="bold")
        for heading in (
            "file",
            "predicted ms",
            "measured ms",
            "accuracy" if labelled else "agreement",
            f"loss ({metric})",
        ):
            table.add_column(heading, justify="right")
        for outcome in outcomes:
            table.add_row(*_row(outcome, labelled), style="bold" if outcome is self.outcome else "")
        return table


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """One column of the comparison."""
    evaluation = outcome.evaluation
    return {
        "name": outcome.name,
        "file_bytes": outcome.file_bytes,
        "predicted_latency_ms": outcome.predicted_latency_ms,
        "measured_latency_ms": outcome.latency.median if outcome.latency else None,
        "loss": evaluation.loss if evaluation else None,
        "agreement": evaluation.agreement if evaluation else None,
        "accuracy": evaluation.accuracy if evaluation else None,
    }


def targets_json(targets: Targets) -> dict[str, Any]:
    """Targets in the units of the result: milliseconds and bytes."""
    return {
        "latency_ms": targets.latency and targets.latency * 1e3,
        "bytes": targets.bytes,
        "memory_bytes": targets.memory,
        "loss": targets.loss,
        "max_drop": targets.max_drop,
        "full_precision_weights": targets.full_precision_weights,
        "objective": targets.objective,
    }


def _row(outcome: Outcome, labelled: bool) -> list[str]:
    predicted, latency, evaluation = outcome.predicted_latency_ms, outcome.latency, outcome.evaluation
    worth = None
    if evaluation:
        worth = evaluation.accuracy if labelled else evaluation.agreement
    return [
        outcome.name,
        format_bytes(outcome.file_bytes),
        "-" if predicted is None else f"{predicted:.3f}",
        "-" if latency is None else f"{latency.median:.3f}",
        "-" if worth is None else f"{100 * worth:.2f} %",
        "-" if evaluation is None else f"{evaluation.loss:.4f}",
    ]
