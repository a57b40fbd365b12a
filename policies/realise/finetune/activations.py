"""Values read in codes, with a learned step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bitplan.formats import Range, top_code
from bitplan.policies.realise.finetune.gradients import round_to_codes
from bitplan.variant import U1

FARTHEST = 8.0
"""Largest logarithm of what a step may change by: a training that diverges must fail by its loss, not by a step of zero."""


class Codes(nn.Module):
    """Fake quantisation of one value for its readers in one format. The step is learned as its logarithm; the zero point
    stays that of calibration, and so does the whole range of a network input."""

    def __init__(self, held: Range, form: str, *, learned: bool) -> None:
        super().__init__()
        self.held, self.form = held, form
        self.rho = nn.Parameter(torch.zeros(()), requires_grad=learned)

    def scale(self) -> Tensor:
        return float(self.held.scale) * self.rho.clamp(-FARTHEST, FARTHEST).exp()

    def forward(self, x: Tensor) -> Tensor:
        low = -self.held.zero_point
        return round_to_codes(x, self.scale(), low, low + top_code(self.form), sign=self.form == U1)

    def padding(self) -> float:
        """What a convolution pads with: zero, or the lower level where zero is none."""
        return self.range().padding_value

    def range(self) -> Range:
        """The range with the step that was learned."""
        return Range(float(np.float32(self.scale().item())), self.held.zero_point)
