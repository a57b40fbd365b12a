"""Resident memory that loading and running one 8-bit network adds to a fresh process, engine by engine.

    python -m harness.memory ENGINE FILE SIZE      (the fresh process: prints its own measurements as JSON)

Counted is the proportional set size (shared pages divided among their users) and the private part of it, after the
engine's package was imported, and after the network was loaded and run a few times. `added` is the difference; what the
engine's libraries take is told beside it.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .engine import Unavailable
from .levels import NATIVE
from .process import package_folder, worker_environment
from .workloads import WholeNetwork

NETWORK = WholeNetwork("resnet18", 224)
RUNS = 5


def measure_memory(cache: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One record per engine; `say` is told what is left out and why."""
    cache.mkdir(parents=True, exist_ok=True)
    records = []
    for engine in ("bitplan", "onnxruntime", "openvino"):
        try:
            if engine != "bitplan":
                package_folder(engine)
            file = _in_own_process(engine, "prepare", str(cache))["file"]
        except Unavailable as reason:
            say(f"left out: memory of {engine}: {reason}")
            continue
        found = _in_own_process(engine, "measure", file)
        record = {"engine": engine, "workload": str(NETWORK), "variant": "int8", **found}
        say(f"memory {engine}: {found['added_pss'] / 1e6:.1f} MB added, file {found['file_bytes'] / 1e6:.1f} MB")
        records.append(record)
    return records


def _in_own_process(engine: str, what: str, argument: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "harness.memory", what, engine, argument],
        env=worker_environment(engine, NATIVE, 1, Path()),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _prepare(engine: str, folder: Path) -> Path:
    """Writes the quantised network as the file that a user of the engine would deploy."""
    if engine == "bitplan":
        from .on_bitplan import Made, network_of, policy

        network = network_of(NETWORK)
        file = folder / f"{NETWORK.name}.bitplan"
        file.write_bytes(Made(network, policy(network, "int8")).artifact)
        return file
    if engine == "onnxruntime":
        import onnx

        from .network_models import network_qdq

        file = folder / f"{NETWORK.name}-int8.onnx"
        onnx.save(network_qdq(NETWORK), str(file))
        return file
    import openvino as ov

    from .on_openvino import quantised_network

    file = folder / f"{NETWORK.name}-int8.xml"
    ov.save_model(quantised_network(NETWORK), str(file))
    return file


def _measure(engine: str, file: Path) -> dict[str, Any]:
    import numpy as np

    image = np.random.default_rng(0).standard_normal((1, 3, NETWORK.size, NETWORK.size), np.float32)
    start = _memory()
    load = _loader(engine)
    imported = _memory()
    run = load(str(file), image)
    for _ in range(RUNS):
        run()
    gc.collect()
    after = _memory()
    size = file.stat().st_size + (file.with_suffix(".bin").stat().st_size if file.suffix == ".xml" else 0)
    return {
        "added_pss": after["Pss"] - imported["Pss"],
        "added_private": after["Private"] - imported["Private"],
        "added_by_import_pss": imported["Pss"] - start["Pss"],
        "peak_rss": _peak(),
        "file_bytes": size,
    }


def _loader(engine: str) -> Callable[[str, Any], Callable[[], object]]:
    """Imports the engine and returns what loads a file: (path, image) -> run."""
    if engine == "bitplan":
        from bitplan.kernels.runtime import Runtime

        def load(path: str, image: Any) -> Callable[[], object]:
            runtime = Runtime.load(path, threads=1)
            return lambda: runtime(image)

    elif engine == "onnxruntime":
        import onnxruntime as ort

        def load(path: str, image: Any) -> Callable[[], object]:
            options = ort.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            return lambda: session.run(None, {"x": image})

    else:
        import openvino as ov

        def load(path: str, image: Any) -> Callable[[], object]:
            settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
            request = ov.Core().compile_model(path, "CPU", settings).create_infer_request()
            return lambda: request.infer([image])

    return load


def _memory() -> dict[str, int]:
    """Bytes: proportional and private set size of this process."""
    sizes: dict[str, int] = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, amount, *_ = line.replace(":", " ").split()
        sizes[name] = 1024 * int(amount)
    return {"Pss": sizes["Pss"], "Private": sizes["Private_Clean"] + sizes["Private_Dirty"]}


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0


def main() -> None:
    what, engine, argument = sys.argv[1:]
    if what == "prepare":
        found: dict[str, Any] = {"file": str(_prepare(engine, Path(argument)))}
    else:
        found = _measure(engine, Path(argument))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
