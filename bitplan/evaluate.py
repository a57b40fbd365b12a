"""What a network is worth on images: loss and accuracy against full precision, image by image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bitplan.kernels import Runtime

Run = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Raw images [N, C, H, W] to the first output [N, ...]."""

Metric = Callable[[NDArray[np.float32], NDArray[Any]], float]
"""(outputs [N, ...], labels [N]) to a figure of merit, larger being better."""


def outputs_of(
    run: Run, images: NDArray[Any], batch: int, report: Callable[[int, int, str], None] | None = None
) -> NDArray[np.float32]:
    """All images through `run` in batches."""
    parts = []
    for start in range(0, len(images), batch):
        parts.append(np.asarray(run(images[start : start + batch]), np.float32))
        if report:
            report(min(start + batch, len(images)), len(images), "")
    return np.concatenate(parts)


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Over the last axis, in double precision."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def divergence(reference: NDArray[np.float32], outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Kullback-Leibler divergence KL(reference || outputs) of each image [N], of the softmax over the classes."""
    p, q = log_softmax(reference.reshape(len(reference), -1)), log_softmax(outputs.reshape(len(outputs), -1))
    return np.asarray((np.exp(p) * (p - q)).sum(-1))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Loss (mean KL to full precision) with its standard error; top-1 agreement with full precision; accuracy (the
    metric's value where one was given) with and without quantisation where labels are known."""

    images: int
    loss: float
    loss_standard_error: float
    agreement: float
    full_precision: float | None = None
    accuracy: float | None = None
    drop_standard_error: float | None = None
    """Paired, image by image; None with a metric of the user's."""

    @property
    def drop(self) -> float:
        """What was lost: accuracy where labels are known, else agreement (a fraction of one)."""
        if self.full_precision is None or self.accuracy is None:
            return 1 - self.agreement
        return self.full_precision - self.accuracy


def evaluate(
    reference: NDArray[np.float32],
    outputs: NDArray[np.float32],
    labels: NDArray[Any] | None,
    metric: Metric | None = None,
) -> Evaluation:
    """Compares the outputs [N, classes] of a policy with those of full precision on the same images."""
    losses = divergence(reference, outputs)
    count = len(losses)
    expected, found = (x.reshape(count, -1).argmax(1) for x in (reference, outputs))
    summary = {
        "images": count,
        "loss": float(losses.mean()),
        "loss_standard_error": float(losses.std() / np.sqrt(count)),
        "agreement": float((expected == found).mean()),
    }
    if labels is None:
        return Evaluation(**summary)  # type: ignore[arg-type]
    if metric is not None:
        return Evaluation(**summary, full_precision=metric(reference, labels), accuracy=metric(outputs, labels))  # type: ignore[arg-type]
    before, after = expected == labels, found == labels
    paired = before.astype(float) - after
    return Evaluation(
        **summary,  # type: ignore[arg-type]
        full_precision=float(before.mean()),
        accuracy=float(after.mean()),
        drop_standard_error=float(paired.std() / np.sqrt(count)),
    )


def runtime_run(runtime: Runtime) -> Run:
    """A `Run` of a runtime with one input; it gives the output (the first, where there are several)."""

    def run(images: NDArray[Any]) -> NDArray[np.float32]:
        return runtime(np.ascontiguousarray(images))

    return run
