"""OpenVINO as a peer, with the settings that make it fastest on one request at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx
import openvino as ov

from . import onnx_models
from .captured import images, network_expected
from .check import relative_error, tolerance
from .engine import Subject, Unavailable, timed_calls
from .levels import weight_bits
from .network_models import network_fp32, network_qdq
from .reference import expected, random_input
from .workloads import ConvChain, WholeNetwork, Workload

INSIDE = "InferRequest.infer: input and output tensors set once, the call from Python is inside"
NNCF_IMAGES = 32


def settings(threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }


def model_of(workload: Workload, variant: str, level: str) -> onnx.ModelProto:
    """The model to read, in float32 where NNCF quantises it. Raises Unavailable where there is none."""
    form = onnx_models.WeightFormat(bits=weight_bits(level))
    match workload, variant:
        case ConvChain(), "int8":
            return onnx_models.conv_chain_int8(workload, form)
        case ConvChain(), "float32":
            return onnx_models.conv_chain_fp32(workload)
        case WholeNetwork(), "float32" | "int8":
            return network_fp32(workload)
        case WholeNetwork(), "int8:qdq":
            return network_qdq(workload, reduce_range=form.bits == 7)
    raise Unavailable(f"openvino has no {variant!r} for {workload}")


def load(workload: Workload, variant: str, threads: int, level: str) -> Subject:
    about: dict[str, Any] = {"weight_bits": weight_bits(level)}
    model = model_of(workload, variant, level)
    core = ov.Core()
    if isinstance(workload, WholeNetwork) and variant == "int8":
        about = {"quantised_by": f"nncf.quantize, {NNCF_IMAGES} random images"}
        graph = quantised_network(workload)
    else:
        graph = core.read_model(model.SerializeToString())
    compiled = core.compile_model(graph, "CPU", settings(threads))
    x = random_input(model)
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))
    request.infer()

    def error() -> float:
        request.infer()
        y = request.get_output_tensor(0).data
        if isinstance(workload, WholeNetwork):
            return relative_error(y, network_expected(workload, x))
        return relative_error(y, expected(model, x))

    about |= {"settings": settings(threads), "inside": INSIDE, "kernels": executed_kernels(compiled)}
    return Subject(timed_calls(request.infer), error, tolerance(workload, variant), about)


def executed_kernels(compiled: ov.CompiledModel) -> dict[str, int]:
    """How often each kernel implementation and precision stands in the compiled graph, constants left out."""
    found: Counter[str] = Counter()
    for operation in compiled.get_runtime_model().get_ops():
        info = operation.get_rt_info()
        kind = str(info["layerType"].astype(str)) if "layerType" in info else ""
        if kind not in ("Const", "Input", "Output", "Parameter", "Result", ""):
            found[f"{kind} {info['primitiveType'].astype(str)}"] += 1
    return dict(found)


def quantised_network(workload: WholeNetwork) -> ov.Model:
    """The network quantised as OpenVINO's users do it, by NNCF. Raises Unavailable where that is not installed."""
    try:
        import nncf
    except ImportError:
        raise Unavailable("nncf is not installed; pip install 'bitplan[bench]'") from None
    graph = ov.Core().read_model(network_fp32(workload).SerializeToString())
    calibration = nncf.Dataset([image[None] for image in images(workload, NNCF_IMAGES)])
    return nncf.quantize(graph, calibration, subset_size=NNCF_IMAGES)
