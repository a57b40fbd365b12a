"""What the ONNX models should give, by the reference evaluator of the ONNX package (numpy, written for clarity)."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator


def random_input(model: onnx.ModelProto, seed: int = 1) -> NDArray[np.generic]:
    """For the model's one input: bytes, or standard normal numbers."""
    rng = np.random.default_rng(seed)
    kind = model.graph.input[0].type.tensor_type
    shape = [dimension.dim_value for dimension in kind.shape.dim]
    if kind.elem_type == onnx.TensorProto.UINT8:
        return rng.integers(0, 256, shape, np.uint8)
    return rng.standard_normal(shape, np.float32)


def expected(model: onnx.ModelProto, x: NDArray[np.generic]) -> NDArray[np.generic]:
    """The model's one output."""
    (y,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x})
    return np.asarray(y)
