"""Images and labels for calibration and test: `load_data(spec)` and what it returns."""

from __future__ import annotations

from bitplan.data.dataset import DEFAULT_CALIBRATION, Dataset
from bitplan.data.load import load_data, load_training_data

__all__ = ["DEFAULT_CALIBRATION", "Dataset", "load_data", "load_training_data"]
