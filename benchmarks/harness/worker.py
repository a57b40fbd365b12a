"""The process of one engine at one ISA level: reads requests, one JSON object a line, and answers each with another.

    {"do": "load", "workload": {...}, "variant": "int8", "threads": 1, "level": "avx2"}  -> {"subject": 0, "error": ...}
    {"do": "time", "subject": 0, "runs": 5}                                              -> {"seconds": [...]}
    {"do": "forget"}                                                                     -> {}

An answer {"unavailable": reason} may take the place of the first.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from typing import Any

from bitplan.profiles.foreground import foreground

from .engine import Subject, Unavailable, engine
from .workloads import from_json

PR_SET_PDEATHSIG = 1


def serve(name: str) -> None:
    # A stopped process does not notice that its pipe was closed, so the kernel ends it with its parent.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    subjects: list[Subject] = []
    for line in sys.stdin:
        try:
            with foreground():  # while loading too: threads keep the priority that they start with
                answer = respond(name, json.loads(line), subjects)
        except Unavailable as reason:
            answer = {"unavailable": str(reason)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def respond(name: str, request: dict[str, Any], subjects: list[Subject]) -> dict[str, Any]:
    match request["do"]:
        case "load":
            workload = from_json(request["workload"])
            subject = engine(name).load(workload, request["variant"], request["threads"], request["level"])
            subjects.append(subject)
            error = subject.error()
            return {
                "subject": len(subjects) - 1,
                "error": error,
                "tolerance": subject.tolerance,
                "about": {**subject.about, **trapped()},
            }
        case "time":
            return {"seconds": subjects[request["subject"]].burst(request["runs"])}
        case "forget":
            subjects.clear()
            gc.collect()
            return {}
        case unknown:
            raise ValueError(f"unknown request {unknown!r}")


def trapped() -> dict[str, int]:
    """How many CPUID instructions were answered at the capped level (see cap_isa/), where there is one."""
    if "BITPLAN_CAP_ISA" not in os.environ:
        return {}
    count = ctypes.CDLL(None).bitplan_cap_isa_traps
    count.restype = ctypes.c_ulong
    return {"cpuid_answered_at_capped_level": count()}


if __name__ == "__main__":
    serve(sys.argv[1])
