"""The exported file in ONNX Runtime against the artifact in ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitplan.errors import BitplanError
from bitplan.evaluate import outputs_of, runtime_run
from bitplan.kernels import Runtime


def in_onnx_runtime(model: bytes, threads: int = 1) -> Callable[[NDArray[Any]], dict[str, NDArray[np.float32]]]:
    """A function from raw images of the only input to every output by our names. Raises BitplanError where ONNX Runtime cannot
    load the model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - its errors have no class of their own
        reason = str(error).strip().splitlines()[0]
        raise BitplanError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load the exported file: {reason}; install a newer one: "
            "pip install 'bitplan[onnx]'"
        ) from None
    name = session.get_inputs()[0].name
    outputs = [output.name.removesuffix("_out") for output in session.get_outputs()]
    return lambda x: dict(zip(outputs, session.run(None, {name: np.asarray(x, np.float32)}), strict=True))


def compared(model: bytes, runtime: Runtime, images: NDArray[Any]) -> dict[str, Any]:
    """`difference`: the largest among all outputs, as a share of the largest output; `same`: the share of numbers that differ by
    less than 1e-4 of that; `agreement`: the share of images with the same class (None where the first output has none)."""
    import onnxruntime

    ours = outputs_of(runtime_run(runtime), images, runtime.planned_batch)
    theirs = outputs_of(in_onnx_runtime(model), images, runtime.planned_batch)
    found: dict[str, Any] = {
        "onnxruntime": onnxruntime.__version__,
        "images": len(images),
        "difference": 0.0,
        "same": 1.0,
    }
    for name, wanted in ours.items():
        error = np.abs(theirs[name] - wanted) / max(float(np.abs(wanted).max()), 1e-30)
        found["difference"] = max(found["difference"], float(error.max()))
        found["same"] = min(found["same"], float((error < 1e-4).mean()))
    first = next(iter(ours))
    classes = [outputs[first].argmax(1) for outputs in (ours, theirs)] if ours[first].ndim == 2 else None
    found["agreement"] = None if classes is None else float((classes[0] == classes[1]).mean())
    return found
