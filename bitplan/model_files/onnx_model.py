"""An ONNX file as a torch module: read, checked, lowered node by node, and compared with the file as ONNX Runtime runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from bitplan.errors import DataError, FileFormatError, UnsupportedError
from bitplan.model_files.same_outputs import compare, tensors
from bitplan.network import Shape
from bitplan.user_code import require_package

if TYPE_CHECKING:
    import onnx

OLDEST = 7
"""The oldest opset whose operations mean here what they mean there."""
FREE_SIZES = (224, 32)
"""Height and width that a network with free ones is compared at."""
FREE_BATCH = 2
OWN = ("", "ai.onnx")
"""The domains of ONNX's own operations."""


def load_onnx(path: Path) -> tuple[fx.GraphModule, dict[str, Any]]:
    """See `load_model_file`."""
    require_package("onnx", f"reading {path}", "onnx")
    from bitplan.model_files.onnx_graph import build_module

    model = _read(path)
    _check_opset(path, model)
    batch, shape = _input_size(path, model)
    try:
        module = build_module(path, model, batch)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise FileFormatError(
            f"{path}: a node does not fit what it reads ({type(error).__name__}: {error}); does ONNX Runtime load the file?"
        ) from error
    run = _source(path, model)
    _verify(module, run, batch, shape, path)
    known = tuple(size for size in shape if size is not None)
    return module, {"input_shape": known} if len(known) == len(shape) else {}


def _read(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import checker, inliner

    try:
        model = onnx.load(path)
        checker.check_model(model if model.ByteSize() < 1 << 31 else str(path))
    except DecodeError as error:
        raise FileFormatError(f"{path} is not an ONNX file ({error}); was it copied whole?") from None
    except FileNotFoundError as error:
        raise DataError(
            f"{path} keeps its weights in {error.filename or 'another file'}, which is not there; copy it beside the model"
        ) from None
    except (checker.ValidationError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        if "should be stored in" in reason or "doesn't exist" in reason:
            raise DataError(
                f"{path}: the file of its weights is missing ({reason}); copy it beside the model"
            ) from None
        raise FileFormatError(f"{path} is not a valid ONNX file: {reason}") from None
    return inliner.inline_local_functions(model) if model.functions else model


def _check_opset(path: Path, model: onnx.ModelProto) -> None:
    from onnx import defs

    for entry in model.opset_import:
        newest = defs.onnx_opset_version()
        if entry.domain in OWN and not OLDEST <= entry.version <= newest:
            raise UnsupportedError(
                f"{path} is of opset {entry.version}; read are {OLDEST} to {newest}: convert it with "
                "onnx.version_converter.convert_version(model, 18)"
                + ("" if entry.version < OLDEST else ", or install a newer onnx")
            )


def _input_size(path: Path, model: onnx.ModelProto) -> tuple[int | None, tuple[int | None, ...]]:
    """The batch and the other sizes of the first input; None for what may vary."""
    from onnx import TensorProto

    stored = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if not inputs:
        raise UnsupportedError(f"{path}: the network has no input")
    for value in inputs:
        kind = value.type.tensor_type.elem_type
        if kind != TensorProto.FLOAT:
            name = TensorProto.DataType.Name(kind).lower()
            raise UnsupportedError(
                f"{path}: the input {value.name!r} is {name}, not float32; cut the file behind its conversion to float32 "
                "(onnx.utils.extract_model), and state mean and std by --mean and --std"
            )
    sizes = [
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None
        for d in inputs[0].type.tensor_type.shape.dim
    ]
    if len(sizes) < 2:
        raise UnsupportedError(
            f"{path}: the input {inputs[0].name!r} has {len(sizes)} axes; it must be [N, C, H, W] or [N, features]"
        )
    return sizes[0], tuple(sizes[1:])


def _source(path: Path, model: onnx.ModelProto) -> Any:
    """Runs the file itself: by ONNX Runtime, or where that is not installed by ONNX's slow reference."""
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(model)
        return lambda x: evaluator.run(None, {evaluator.input_names[0]: x})
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - its errors have no class of their own
        reason = str(error).strip().splitlines()[0]
        raise FileFormatError(f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it: {reason}") from None
    return lambda x: session.run(None, {session.get_inputs()[0].name: x})


def _verify(module: fx.GraphModule, run: Any, batch: int | None, shape: tuple[int | None, ...], path: Path) -> None:
    if sum(node.op == "placeholder" for node in module.graph.nodes) > 1:
        return  # networks of one input only go further than this

    def expected(x: Tensor) -> Sequence[Tensor]:
        return [torch.from_numpy(np.array(value, np.float32)) for value in run(x.numpy())]

    count = batch or FREE_BATCH
    for size in FREE_SIZES:
        filled: Shape = tuple(size if number is None else number for number in shape)
        try:
            run(np.zeros((count, *filled), np.float32))
        except Exception as error:  # noqa: BLE001 - whatever the file's network says of this size
            reason = str(error).strip().splitlines()[0]
            if size != FREE_SIZES[-1] and None in shape:
                continue
            raise DataError(
                f"{path}: the network does not run on images of shape {filled} ({reason})"
                + ("; fix height and width in the file" if None in shape else "")
            ) from None
        compare(lambda x: tensors(module(x)), expected, count, filled, str(path), 1 if batch is None else 3)
        return


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operations that a file uses."""
    return max((int(entry.version) for entry in model.opset_import if entry.domain in OWN), default=OLDEST)
