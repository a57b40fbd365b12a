"""ONNX Runtime as a peer, with the settings that make it fastest on one request at a time."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from . import onnx_models
from .captured import network_expected
from .check import relative_error, tolerance
from .engine import Subject, Unavailable, timed_calls
from .levels import weight_bits
from .network_models import network_fp32, network_qdq
from .reference import expected, random_input
from .workloads import ColdLinear, ConvChain, WholeNetwork, Workload

SETTINGS = {
    "graph_optimization_level": "ORT_ENABLE_ALL",
    "execution_mode": "ORT_SEQUENTIAL",
    "inter_op_num_threads": "1",
    "session.intra_op.allow_spinning": "1",
    "session.set_denormal_as_zero": "1",
}
INSIDE = "InferenceSession.run_with_iobinding: inputs and outputs bound once, the call from Python is inside"

ort.set_default_logger_severity(3)


def load(workload: Workload, variant: str, threads: int, level: str) -> Subject:
    if isinstance(workload, ColdLinear):
        return _cold(workload, variant, threads, level)
    model = model_of(workload, variant, level)
    run = BoundSession(model, threads)

    def error() -> float:
        if isinstance(workload, WholeNetwork):
            return relative_error(run.y(), network_expected(workload, run.x))
        return relative_error(run.y(), expected(model, run.x))

    return Subject(timed_calls(run), error, tolerance(workload, variant), _about(threads, level))


def model_of(workload: Workload, variant: str, level: str, seed: int = 0) -> onnx.ModelProto:
    """Raises Unavailable where there is none."""
    form = onnx_models.WeightFormat(bits=weight_bits(level), unsigned=False)
    unsigned = onnx_models.WeightFormat(unsigned=True)
    match workload, variant:
        case ConvChain(), "int8":
            return onnx_models.conv_chain_int8(workload, form, seed)
        case ConvChain(), "int8:unsigned":
            return onnx_models.conv_chain_int8(workload, unsigned, seed)
        case ConvChain(), "float32":
            return onnx_models.conv_chain_fp32(workload, seed)
        case ColdLinear(), "int8":
            return onnx_models.linear_int8(workload, form, seed)
        case ColdLinear(), "int8:unsigned":
            return onnx_models.linear_int8(workload, unsigned, seed)
        case ColdLinear(), "int8:matmulinteger":
            return onnx_models.linear_integer(workload, form.bits, seed)
        case ColdLinear(), "int4":
            return onnx_models.linear_nbits(workload, seed=seed)
        case WholeNetwork(), "float32":
            return network_fp32(workload)
        case WholeNetwork(), "int8":
            return network_qdq(workload, reduce_range=form.bits == 7)
    raise Unavailable(f"onnxruntime has no {variant!r} for {workload}")


def _about(threads: int, level: str) -> dict[str, Any]:
    settings = {**SETTINGS, "intra_op_num_threads": str(threads)}
    return {"settings": settings, "inside": INSIDE, "weight_bits": weight_bits(level)}


class BoundSession:
    """A session with a random input and its outputs bound once; a call runs it."""

    def __init__(self, model: onnx.ModelProto, threads: int) -> None:
        self.session = ort.InferenceSession(
            model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
        )
        self.x = random_input(model)
        self._input = ort.OrtValue.ortvalue_from_numpy(self.x)
        self._binding: Any = self.session.io_binding()
        self._binding.bind_ortvalue_input(self.session.get_inputs()[0].name, self._input)
        for output in self.session.get_outputs():
            self._binding.bind_output(output.name, "cpu")
        self()
        outputs = self._binding.get_outputs()
        self._binding.clear_binding_outputs()
        for output, value in zip(self.session.get_outputs(), outputs, strict=True):
            self._binding.bind_ortvalue_output(output.name, value)

    def __call__(self) -> None:
        self.session.run_with_iobinding(self._binding)

    def y(self) -> Any:
        self()
        return self._binding.get_outputs()[0].numpy()


def session_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options


def _cold(workload: ColdLinear, variant: str, threads: int, level: str) -> Subject:
    model = model_of(workload, variant, level)
    sessions = [BoundSession(model, threads) for _ in range(workload.copies)]  # each packs weights of its own
    turn = cycle(sessions)

    def error() -> float:
        if variant == "int4":  # the reference evaluator knows no MatMulNBits
            return _nbits_error(model, sessions[0])
        return relative_error(sessions[0].y(), expected(model, sessions[0].x))

    return Subject(
        timed_calls(lambda: next(turn)()),
        error,
        tolerance(workload, variant),
        _about(threads, level) | {"copies": len(sessions)},
    )


def _nbits_error(model: onnx.ModelProto, session: BoundSession) -> float:
    """Against the unpacked weights, two codes a byte, the lower first, around 8."""
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    packed = arrays["weight"]
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1).astype(np.float32) - 8
    weight = (codes * arrays["scales"].reshape(*packed.shape[:2], 1)).reshape(packed.shape[0], -1)
    return relative_error(session.y(), session.x @ weight.T)
