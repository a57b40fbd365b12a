"""What pairs of layers cost together, for the variants that were chosen."""

from __future__ import annotations

from typing import Any

from bitplan.report.folder import Folder
from bitplan.workflow import LOSS


def pair_facts(found: Folder, missing: dict[str, str]) -> dict[str, Any] | None:
    """`values` [layers, layers]: the loss of both layers' choices together beyond their own losses, null on the diagonal,
    before the link. None, with the reason in `missing`, where it was not measured."""
    profile = found.loss
    if profile is None:
        return None
    choices = list(found.policy.variants.items())
    if profile.pairs is None:
        missing["pairs"] = f"the losses are of the estimator {profile.estimator}, which measures no pairs of layers"
        return None
    if unknown := [f"{name} as {variant}" for name, variant in choices if (name, variant) not in profile.increases]:
        missing["pairs"] = f"{LOSS} has no entry for layer {unknown[0]}"
        return None
    numbers = [profile.number(*choice) for choice in choices]
    rows = [[None if i == j else float(profile.pairs[i, j]) for j in numbers] for i in numbers]
    largest = max((abs(value) for row in rows for value in row if value is not None), default=0.0)
    return {
        "layers": [name for name, _ in choices],
        "values": rows,
        "largest": largest,
        "unit": f"{profile.estimator} score"
        if profile.scale != profile.metric
        else f"{profile.metric}, before the link",
        "estimator": profile.estimator,
    }
