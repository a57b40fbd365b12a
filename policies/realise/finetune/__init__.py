"""Fine-tuning a realised policy: training that knows how every weight and activation will be rounded.

Latent weights become levels in every step by the training rule of their layer's encoding (`rules/`); what is lowered is
the distance to the full-precision network's outputs (`loss.py`). The result is a `Realisation` like any other.
"""

from __future__ import annotations

from bitplan.policies.realise.finetune.checkpoint import Epoch
from bitplan.policies.realise.finetune.loss import Loss, checked
from bitplan.policies.realise.finetune.settings import Settings, parse_settings
from bitplan.policies.realise.finetune.train import Finetuned, finetune

__all__ = ["Epoch", "Finetuned", "Loss", "Settings", "checked", "finetune", "parse_settings"]
