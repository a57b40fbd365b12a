"""What a network is worth on images: loss and accuracy against full precision, image by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitplan.errors import DataError, UsageError
from bitplan.network import Network
from bitplan.profiles.metrics import effective_metric, increase, is_classifier

if TYPE_CHECKING:
    from bitplan.kernels import Runtime

Outputs = Mapping[str, NDArray[np.float32]]
"""Every output by name, [N, ...]."""

Run = Callable[[NDArray[Any]], Outputs]
"""Raw images [N, C, H, W] of the only input to the outputs."""

Metric = Callable[..., float]
"""(outputs, labels) to a figure of merit, larger being better; `outputs` is the array [N, ...] of the only output, or
the mapping of all of them."""


def outputs_of(
    run: Run, images: NDArray[Any], batch: int, report: Callable[[int, int, str], None] | None = None
) -> dict[str, NDArray[np.float32]]:
    """All images through `run` in batches."""
    parts: list[Outputs] = []
    for start in range(0, len(images), batch):
        parts.append(run(images[start : start + batch]))
        if report:
            report(min(start + batch, len(images)), len(images), "")
    return {name: np.concatenate([np.asarray(part[name], np.float32) for part in parts]) for name in parts[0]}


def runtime_run(runtime: Runtime) -> Run:
    """A `Run` of a runtime with one input."""
    name = next(iter(runtime.inputs))
    return lambda images: runtime({name: np.ascontiguousarray(images)})


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss increase over full precision with its standard error, in the metric that `loss_metric` names (see
    profiles/metrics.py). For classifiers, top-1 agreement with full precision and, where labels are known, accuracy with
    and without quantisation; a metric of the user's stands in place of accuracy."""

    images: int
    loss_metric: str
    loss: float
    loss_standard_error: float
    agreement: float | None = None
    full_precision: float | None = None
    accuracy: float | None = None
    drop_standard_error: float | None = None
    """Paired, image by image; None with a metric of the user's."""

    @property
    def drop(self) -> float | None:
        """What was lost (a fraction of one): accuracy where labels are known, else agreement; None where the network
        is no classifier and there is no metric."""
        if self.full_precision is not None and self.accuracy is not None:
            return self.full_precision - self.accuracy
        return None if self.agreement is None else 1 - self.agreement


def evaluate(
    network: Network,
    reference: Outputs,
    outputs: Outputs,
    labels: NDArray[Any] | None,
    *,
    loss_metric: str = "kl",
    metric: Metric | None = None,
) -> Evaluation:
    """Compares the outputs of a policy with those of full precision on the same images. Raises UsageError where the
    user's metric does not return a finite number."""
    loss_metric = effective_metric(network, loss_metric)
    losses = increase(network, loss_metric, reference, labels)(outputs, slice(None))
    count = len(losses)
    error = float(losses.std(dtype=np.float64) / np.sqrt(count))
    evaluation = Evaluation(count, loss_metric, float(losses.mean(dtype=np.float64)), error)
    first = network.outputs[0]
    expected = found = None
    if is_classifier(network):
        expected, found = reference[first].argmax(1), outputs[first].argmax(1)
        evaluation = replace(evaluation, agreement=float((expected == found).mean()))
    if labels is None:
        return evaluation
    if metric is not None:
        before, after = _call(metric, reference, labels), _call(metric, outputs, labels)
        return replace(evaluation, full_precision=before, accuracy=after)
    if expected is None or found is None:
        return evaluation
    right_before, right_after = expected == labels, found == labels
    return replace(
        evaluation,
        full_precision=float(right_before.mean()),
        accuracy=float(right_after.mean()),
        drop_standard_error=float((right_before.astype(float) - right_after).std() / np.sqrt(count)),
    )


def check_labels_fit(network: Network, labels: NDArray[Any] | None) -> None:
    """Raises DataError for labels that are no classes of this classifier."""
    if labels is None or not len(labels) or not is_classifier(network):
        return
    classes = network.by_name[network.outputs[0]].shape[0]
    if labels.max() >= classes:
        raise DataError(
            f"the labels run up to {labels.max()}, the network has the classes 0..{classes - 1}; "
            "check that network and data belong together"
        )


def _call(metric: Metric, outputs: Outputs, labels: NDArray[Any]) -> float:
    given = next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)
    name = getattr(metric, "__name__", "metric")
    try:
        value = float(metric(given, labels))
    except Exception as error:
        raise UsageError(
            f"the metric {name!r} raised {type(error).__name__}: {error}"
            "; it is called with (outputs, labels) and returns a number"
        ) from error
    if not np.isfinite(value):
        raise UsageError(f"the metric {name!r} returned {value}; it must return a finite number, larger being better")
    return value
