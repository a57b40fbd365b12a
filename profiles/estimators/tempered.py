"""As `separable`, with KL divergences of softened outputs: T^2 KL(softmax(z / T) || softmax(z' / T)).

On images that a network was trained on its outputs are all but certain, and a change of logits that would cost much on
other images costs nothing there. A temperature above 1, as in distillation (arXiv 1503.02531), makes all classes count;
for a large one the loss becomes the variance of the change of the logits, which few images say more of than of the loss at 1
(decision 0010). Losses of policies come from a link. Metrics other than kl are measured as they are.
"""

from __future__ import annotations

from bitplan.profiles.estimators.separable import Separable

TEMPERATURE = 3.0
"""See benchmarks/estimators.py for what others give."""

METHOD = Separable(TEMPERATURE)
