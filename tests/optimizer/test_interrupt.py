"""Ctrl-C stops a solver at once and is not swallowed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

LONG = """
import signal
import sys
import numpy as np
from bitplan.optimizer.builder import ProblemBuilder
from bitplan.optimizer.solvers import BY_NAME

random = np.random.default_rng(0)
builder = ProblemBuilder()
for group in range(40):
    builder.add_group(f"g{group}", [f"o{option}" for option in range(6)])
builder.add_resource("loss")
builder.add_resource("bytes", counted=True, limit=40 * 20)
for group in range(40):
    builder.add_linear("bytes", group, random.integers(0, 60, 6))
    for other in range(group):
        builder.add_pair("loss", group, other, random.normal(size=(6, 6)))
problem = builder.build("loss")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
print("ready", flush=True)
try:
    BY_NAME[sys.argv[1]].solve(problem, time_limit=50)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("name", ["cp-sat", "highs", "quadratic"])
def test_control_c_reaches_the_caller_within_seconds(name: str) -> None:
    with subprocess.Popen([sys.executable, "-c", LONG, name], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(1.5)
        begin = time.perf_counter()
        process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert output == "interrupted\n"
    assert process.returncode == 0
    assert time.perf_counter() - begin < 10
