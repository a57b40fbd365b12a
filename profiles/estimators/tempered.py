"""As `separable`, with KL divergences of softened outputs: T^2 KL(softmax(z / T) || softmax(z' / T)).

T is what the full-precision outputs ask for (temperature.py): 3 on images that a network was trained on, 1, as `separable`,
where its outputs are uncertain already. Losses of policies come from a link. Metrics other than kl are measured as they are.
"""

from __future__ import annotations

from bitplan.profiles.estimators.separable import Separable

METHOD = Separable(temperature=None)
