"""`optimize export`: an artifact, or the result folder it lies in, as an ONNX file."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from bitplan.artifact_commands import input_shape, is_policy, load_artifact, random_images
from bitplan.atomic_file import write_atomically
from bitplan.config import load_config, merge
from bitplan.data import load_data
from bitplan.errors import BitplanError, UsageError
from bitplan.example import INPUT_SHAPE, example_data
from bitplan.kernels import Runtime
from bitplan.kernels.read_artifact import read_artifact
from bitplan.policies.policy_file import policy_hash, read_policy
from bitplan.policy_commands import artifact_of_policy
from bitplan.progress import Reporter
from bitplan.targets import format_bytes
from bitplan.trained import is_example
from bitplan.user_code import require_package
from bitplan.workflow import ARTIFACT, CONFIG, POLICY

DEFAULT_NAME = "network.onnx"
IMAGES = 100
"""Images that both runtimes execute where no data is given."""


def export(
    source: Path, output: Path | None, four_bits: str, data: str | None, check: bool, reporter: Reporter
) -> dict[str, Any]:
    """Writes the ONNX file of an artifact, of the artifact in a folder or of a policy file (carried out anew if it was edited),
    says how each layer was written and compares both runtimes. Returns the same for machines.
    Raises UsageError where there is no artifact or an extra is missing, UnsupportedError for what ONNX cannot say."""
    require_package("onnx", "exporting to ONNX", "onnx")
    from bitplan.onnx_export.layers import FOUR_BITS
    from bitplan.onnx_export.model import OPSET, onnx_model

    if four_bits not in FOUR_BITS:
        raise UsageError(f"--int4 is {four_bits!r}; it must be one of {', '.join(FOUR_BITS)}")
    path = source / ARTIFACT if source.is_dir() else source
    if not path.exists():
        raise UsageError(f"there is no {path}; name an artifact, or the folder of a result that has one")
    carried_out = artifact_of_policy(path, reporter) if is_policy(path) else None
    runtime = load_artifact(carried_out or path, 1)  # refuses what is damaged, with the reason
    content = carried_out or path.read_bytes()
    contents = read_artifact(content, str(path))
    if not carried_out:
        _warn_of_an_edit(path.parent / POLICY, contents.policy_hash, reporter)
    model, layers = onnx_model(contents, four_bits)
    written = model.SerializeToString()
    target = output or (source if source.is_dir() else source.parent) / DEFAULT_NAME
    found = _checked(written, runtime, data, path.parent, reporter) if check else "it was not asked for"
    write_atomically(target, written)
    summary: dict[str, Any] = {
        "file": str(target),
        "bytes": len(written),
        "artifact_bytes": len(content),
        "opset": OPSET,
        "layers": [
            {
                "name": layer.name,
                "encoding": layer.encoding,
                "activation": layer.activation,
                "weights": layer.weights,
                "dequantised": layer.dequantised,
            }
            for layer in layers
        ],
        "check": None if isinstance(found, str) else found,
    }
    reporter.show(_table(summary))
    lost = [layer for layer in layers if layer.dequantised]
    if lost:
        names = ", ".join(dict.fromkeys(layer.encoding for layer in lost))
        reporter.say(
            f"{len(lost)} of {len(layers)} layers are float32 in the file, for ONNX has no {names}; their numbers are the same"
        )
    reporter.say(
        f"{target}: {format_bytes(len(written))}, the artifact has {format_bytes(len(content))}; opset {OPSET}"
    )
    reporter.say(_said(found))
    return summary


def _warn_of_an_edit(policy: Path, carried_out: bytes, reporter: Reporter) -> None:
    """Where the policy beside an artifact is not the one that was carried out."""
    with suppress(BitplanError):  # an artifact is exported whatever lies beside it
        if policy.exists() and policy_hash(read_policy(policy)) != carried_out:
            reporter.warn(
                f"{escape(str(policy))} was edited since; to carry it out: optimize export {escape(str(policy))}"
            )


def _checked(
    model: bytes, runtime: Runtime, data: str | None, folder: Path, reporter: Reporter
) -> dict[str, Any] | str:
    """What came of the comparison, or why there is none."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed; pip install 'bitplan[onnx]'"
    if len(runtime.inputs) > 1:
        return f"it has the inputs {', '.join(runtime.inputs)}; compare it from Python"
    from bitplan.onnx_export.check import compared

    images, kind = _images(runtime, data, folder)
    with reporter.stage(f"running {len(images)} {kind} images in both runtimes"):
        return compared(model, runtime, images) | {"kind": kind}


def _images(runtime: Runtime, data: str | None, folder: Path) -> tuple[NDArray[Any], str]:
    """Raw images to compare on, and what they are: the test images of `data`; without it, some of those of the result folder's
    configuration where they fit; else random ones."""
    shape = input_shape(runtime)
    if data is not None:
        return load_data(data, preprocessing=runtime.preprocessing, input_shape=shape).test_x, "test"
    config = merge({}, load_config(folder / CONFIG)) if (folder / CONFIG).exists() else None
    if config and is_example(config) and shape == INPUT_SHAPE:
        return example_data().test_x[:IMAGES], "test"
    if config and config.data and Path(config.data).exists():
        with suppress(BitplanError):  # of another network, or not readable as images by now
            found = load_data(config.data, limit=IMAGES, preprocessing=runtime.preprocessing, input_shape=shape)
            return found.test_x, "test"
    return random_images(runtime, IMAGES), "random"


def _said(check: dict[str, Any] | str) -> str:
    if isinstance(check, str):
        return escape(f"not compared with our runtime: {check}")
    agreement = (
        "" if check["agreement"] is None else f", the same class for {100 * check['agreement']:.1f} % of the images"
    )
    return (
        f"ONNX Runtime {check['onnxruntime']} against our runtime on {check['images']} {check['kind']} images: outputs differ "
        f"by at most {check['difference']:.2g} of the largest{agreement}"
    )


def _table(summary: dict[str, Any]) -> Table:
    table = Table("layer", "encoding", "weights in ONNX", "input")
    for layer in summary["layers"]:
        table.add_row(
            layer["name"],
            layer["encoding"],
            f"{layer['weights']}, dequantised" if layer["dequantised"] else layer["weights"],
            INPUTS[layer["activation"]],
        )
    return table


INPUTS = {"f32": "float32", "u8": "uint8", "u4": "uint8 from 0 to 15", "u2": "uint8 from 0 to 3", "u1": "two numbers"}
"""What layers of each activation format read in ONNX."""
