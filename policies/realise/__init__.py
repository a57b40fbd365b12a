"""Carrying a policy out: calibrate the ranges, quantise every layer, recover what quantisation cost.

Steps that act on one layer are functions of their own files (`Recovery`); `realise` applies them in the order of the
data flow, each layer on what the layers realised before it really deliver. `recover` adds the steps that act on the whole
network, and measures what each step gains.
"""

from __future__ import annotations

from bitplan.policies.realise.calibrate import calibrate
from bitplan.policies.realise.correct import correct
from bitplan.policies.realise.front import Images
from bitplan.policies.realise.pipeline import Realisation, quantise, realise
from bitplan.policies.realise.reconstruct import reconstruct
from bitplan.policies.realise.recover import Recovered, Watch, recover
from bitplan.policies.realise.subject import Recovery, Subject

__all__ = [
    "Images",
    "Realisation",
    "Recovered",
    "Recovery",
    "Subject",
    "Watch",
    "calibrate",
    "correct",
    "quantise",
    "realise",
    "reconstruct",
    "recover",
]
