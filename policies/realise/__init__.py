"""Carrying a policy out: calibrate the ranges, quantise every layer, recover what quantisation cost.

Steps that act on one layer are functions of their own files (`Recovery`); `realise` applies them in the order of the
data flow, each layer on what the layers realised before it really deliver.
"""

from __future__ import annotations

from bitplan.policies.realise.calibrate import calibrate
from bitplan.policies.realise.correct import correct
from bitplan.policies.realise.front import Images
from bitplan.policies.realise.pipeline import RECOVERIES, Realisation, quantise, realise
from bitplan.policies.realise.subject import Recovery, Subject

__all__ = ["RECOVERIES", "Images", "Realisation", "Recovery", "Subject", "calibrate", "correct", "quantise", "realise"]
