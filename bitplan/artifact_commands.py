"""`optimize run` and `optimize bench`: what can be done with an artifact alone, without torch."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from bitplan.atomic_file import write_atomically
from bitplan.data import load_data
from bitplan.errors import BitplanError, UsageError
from bitplan.evaluate import outputs_of, runtime_run
from bitplan.kernels import Runtime
from bitplan.network import Shape
from bitplan.policies.policy_file import FORMAT
from bitplan.profiles.measure_policy import START_UP, measure_policy
from bitplan.progress import Reporter

BENCH_STEP_RUNS = 50


def run_artifact(
    artifact: Path | bytes, data: str | None, output: Path | None, threads: int, reporter: Reporter
) -> dict[str, Any]:
    """Executes the artifact on the test images of `data` (random images without), and says what came out.
    `output`: the .npz file, whatever its name, that gets the first output as `outputs`."""
    if output is not None and output.exists() and not output.is_file():
        raise UsageError(f"the output {output} is not a regular file; name a file to write, such as outputs.npz")
    runtime = load_artifact(artifact, threads)
    labels: NDArray[Any] | None = None
    if data is None:
        images = random_images(runtime, 1)
    else:
        loaded = load_data(data, preprocessing=runtime.preprocessing, input_shape=input_shape(runtime))
        images, labels = loaded.test_x, loaded.test_y
    with reporter.stage(f"running {len(images)} images") as report:
        outputs = next(iter(outputs_of(runtime_run(runtime), images, runtime.planned_batch, report).values()))
    summary: dict[str, Any] = {"images": len(images), "output_shape": list(outputs.shape)}
    if outputs.ndim == 2:
        classes = outputs.argmax(1)
        summary["classes"] = classes[:10].tolist()
        if labels is not None:
            summary["accuracy"] = float((classes == labels).mean())
    if output is not None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, outputs=outputs)
        write_atomically(output, buffer.getvalue())
        summary["output"] = str(output)
    return summary


def bench_artifact(
    artifact: Path, runs: int, threads: int, batch: int, reporter: Reporter
) -> tuple[dict[str, Any], Table]:
    """The artifact's latency in a fresh process, and a table of its steps' medians."""
    runtime = load_artifact(artifact, threads)
    if batch > runtime.planned_batch:
        raise BitplanError(
            f"{artifact} was planned for at most {runtime.planned_batch} images at a time, not {batch}; plan with --batch {batch}"
        )
    inputs = {next(iter(runtime.inputs)): random_images(runtime, batch)}
    with reporter.stage("timing the artifact in a fresh process", at_most=START_UP) as report:
        measured = measure_policy(artifact, inputs, runs=runs, threads=threads, expect=report.takes)
    with reporter.stage("timing its steps", at_most=BENCH_STEP_RUNS * measured.latency.high):
        medians = np.median(runtime.time_steps(inputs, BENCH_STEP_RUNS), axis=0)
    table = Table("step", "ms", "share", title=f"{artifact.name}: {measured.latency.median * 1e3:.3f} ms")
    for name, seconds in zip(runtime.steps, medians, strict=True):
        table.add_row(name, f"{seconds * 1e3:.4f}", f"{100 * seconds / medians.sum():.1f} %")
    latency = measured.latency
    summary = {
        "latency_ms": {"median": latency.median * 1e3, "low": latency.low * 1e3, "high": latency.high * 1e3},
        "runs": latency.samples,
        "threads": threads,
        "batch": batch,
        "steps_ms": {name: float(s * 1e3) for name, s in zip(runtime.steps, medians, strict=True)},
    }
    return summary, table


def load_artifact(path: Path | bytes, threads: int) -> Runtime:
    """The loaded artifact. Raises UsageError, with the command that makes an artifact of it, for a policy file."""
    if isinstance(path, bytes):
        return Runtime.from_bytes(path, threads=threads)
    if is_policy(path):
        raise UsageError(
            f"{path} is a policy, not an artifact; carry it out on its network and data first: "
            f"optimize realise {shlex.quote(str(path))} (with the --model, --weights and --data it was planned for), "
            "then run the network.bitplan that this writes"
        )
    return Runtime.load(path, threads=threads)


def is_policy(path: Path) -> bool:
    """Whether this is a policy file, readable or not in detail."""
    if path.suffix != ".json":
        return False
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def random_images(runtime: Runtime, batch: int) -> NDArray[np.uint8]:
    """Raw random images of the artifact's first input."""
    size = (batch, *input_shape(runtime))
    return np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)


def input_shape(runtime: Runtime) -> Shape:
    """The shape of the artifact's only input. Raises BitplanError where it has several."""
    if len(runtime.inputs) != 1:
        raise BitplanError(f"the artifact has the inputs {', '.join(runtime.inputs)}; run it from Python, by name")
    return next(iter(runtime.inputs.values()))
