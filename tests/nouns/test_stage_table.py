"""The stages of a policy's life, as rows."""

from __future__ import annotations

from rich.console import Console

from bitplan.moved_bytes import moved_layers
from bitplan.policies.policy import LayerPolicy, Policy
from bitplan.stage_table import planned_stage, stage_table
from bitplan.variant import Variant


def policy(*names: str, scale: str = "kl") -> Policy:
    layers = tuple(LayerPolicy(f"layer{i}", Variant(name), 10 * i + len(name)) for i, name in enumerate(names))
    predicted = {"file_bytes": 1000, "latency_ms": 0.5, "loss": 0.25}
    return Policy(layers, predicted=predicted, settings={"loss_scale": scale})


def test_a_predicted_score_is_not_shown_as_a_loss() -> None:
    assert planned_stage(policy("int8"))["loss"] == 0.25
    assert planned_stage(policy("int8", scale="tempered score"))["loss"] is None


def test_every_stage_is_a_row_and_what_is_unknown_a_dash() -> None:
    measured = {"file_bytes": 990, "latency_ms": 0.4567, "loss": 0.125, "agreement": 0.9, "accuracy": 0.85}
    console = Console(width=100, record=True)
    console.print(stage_table({"planned": planned_stage(policy("int8")), "finetuned_again": measured}, "title"))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.export_text().splitlines()]
    assert ["plan (predicted)", "1 kB", "0.500", "0.2500", "-", "-"] in lines
    assert ["fine-tuned again", "990 B", "0.457", "0.1250", "90.00 %", "85.00 %"] in lines


def test_layers_whose_variant_changed_are_listed_with_their_bytes() -> None:
    found = moved_layers(policy("int8", "binary", "int4"), policy("int8", "int2", "int4"))
    assert found == [{"layer": "layer1", "before": "binary", "after": "int2", "bytes_before": 16, "bytes_after": 14}]
