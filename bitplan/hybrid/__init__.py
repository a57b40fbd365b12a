"""Layer mode: networks that cannot be captured whole (control flow, detection heads).

The convolutions and linear layers of a torch module are planned, carried out and packed as a network in which each
reads an input of its own; everything else stays in torch. `load_hybrid`, `device_profile`, `loss_profile` and
`carry_out` take the places of their namesakes in the main job (bitplan/stages.py)."""

from __future__ import annotations

from bitplan.hybrid.latency import device_profile
from bitplan.hybrid.loss import loss_profile
from bitplan.hybrid.realise import carry_out
from bitplan.hybrid.result_note import result_note
from bitplan.hybrid.trained import HybridTrained, load_hybrid

__all__ = ["HybridTrained", "carry_out", "device_profile", "load_hybrid", "loss_profile", "result_note"]
