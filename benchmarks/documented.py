"""Which results docs/benchmarks.md shows, and how: for each table its files, the command that made them, and its columns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.rows import rows, with_bars
from table import BARS, read

RESULTS = Path(__file__).with_name("results")
MACHINES = {
    "epyc-zen4": "AMD EPYC (Zen 4), AVX-512 VNNI, 2 cores",
    "epyc-zen5": "AMD EPYC (Zen 5), AVX-512 VNNI, 2 cores",
    "xeon-amx": "Intel Xeon with AMX, 2 cores",
}
"""By the folder of the results."""

Rows = Sequence[Mapping[str, Any]]
Column = tuple[str, Callable[[Mapping[str, Any]], str]]


@dataclass(frozen=True)
class Shown:
    """One table: result files of one machine's folder, read by `rows_of` (a file's content to rows; by default itself)."""

    title: str
    machine: str
    files: tuple[str, ...]
    command: str
    columns: tuple[Column, ...]
    note: str = ""
    rows_of: Callable[[Any], Rows] = lambda content: content

    def rows(self) -> list[Mapping[str, Any]]:
        return [
            row for name in self.files for row in self.rows_of(json.loads((RESULTS / self.machine / name).read_text()))
        ]


def text(key: str, heading: str = "") -> Column:
    return heading or key, lambda row: str(row[key])


def number(key: str, heading: str = "", form: str = ".3g") -> Column:
    """A number, or an empty cell where there is none."""
    return heading or key, lambda row: "" if _absent(row[key]) else format(row[key], form)


def percent(key: str, heading: str = "", form: str = ".2f") -> Column:
    return f"{heading or key}, %", lambda row: "" if _absent(row[key]) else format(100 * row[key], form)


def _absent(value: float | None) -> bool:
    return value is None or math.isnan(value)


def last_steps(content: Rows) -> Rows:
    """Of each policy and choice of ranges the row behind the last step of recovery."""
    return list({(row["policy"], row.get("ranges")): row for row in content}.values())


def side_by_side(content: Rows) -> Rows:
    """One row for each instance, with every solver's objective relative to the best."""
    found: dict[str, dict[str, float]] = {}
    for row in content:
        if row["objective"] is not None:
            found.setdefault(row["instance"], {})[row["solver"]] = row["objective"]
    relative = ((name, objectives, min(objectives.values())) for name, objectives in found.items())
    return [
        {"instance": name} | {solver: value / best - 1 for solver, value in objectives.items()}
        for name, objectives, best in relative
    ]


def above_best(solver: str) -> Column:
    return solver, lambda row: f"{100 * row[solver]:.2f} %" if solver in row else "none"


def peers(content: Any) -> Rows:
    """An allocation beside ours of no more bytes, by the first of the estimators that were tried."""
    mine = [next(iter(row["ours"].values())) for row in content["rows"]]
    pairs = zip(content["rows"], mine, strict=True)
    return [row | {"ours_kl": ours["kl"], "ours_accuracy": ours["accuracy"]} for row, ours in pairs]


SOLVERS = ("greedy", "annealing", "separable", "cp-sat", "highs", "gscip", "bitplan")
UNIFORM = (
    text("network"),
    text("uniform"),
    number("bytes", form=",.0f"),
    number("uniform_kl", "uniform's KL"),
    number("plan_kl", "our KL"),
    percent("uniform_accuracy", "uniform's accuracy"),
    percent("plan_accuracy", "our accuracy"),
    number("gain_in_standard_errors", "gain, standard errors", ".1f"),
)
ESTIMATORS = (
    text("estimator"),
    number("bits", "bits per weight"),
    number("kl", "KL", ".4f"),
    percent("accuracy"),
    number("passes", "forward passes", ".0f"),
)
RECOVERY = (
    text("policy"),
    text("step", "last step"),
    number("held_back_loss", "held-back loss"),
    number("kl", "KL"),
    percent("accuracy"),
    percent("agreement"),
)
SOLVED = (
    text("instance"),
    text("status"),
    number("objective", form=".4f"),
    number("bound", form=".4f"),
    percent("gap"),
    number("seconds", form=".1f"),
)
CODING = (
    text("source"),
    text("coder"),
    number("bits", form=".3f"),
    percent("pruned", form=".1f"),
    number("kept"),
    number("error"),
)
ALLOCATION = (
    text("network"),
    number("budget_bits_per_weight", "budget, bits per weight", ".2f"),
    text("peer"),
    number("bits_per_weight", "its bits", ".2f"),
    number("kl", "its KL"),
    number("ours_kl", "our KL"),
    percent("accuracy", "its accuracy"),
    percent("ours_accuracy", "our accuracy"),
)
BITS = "The same choice of bits per layer for all; ours has no more bytes than the other's."

KILLED = (
    text("scenario"),
    text("units"),
    text("kills"),
    text("same_result", "same result"),
    text("recorded_twice", "units recorded twice"),
)

TABLES: tuple[Shown, ...] = (
    Shown(
        "Uniform policies against one program",
        "epyc-zen4",
        (
            "2026-11-22-against-uniform-resnet20.json",
            "2026-11-22-against-uniform-example-vgg6.json",
            "2026-11-22-against-uniform-efficientnet.json",
        ),
        "python benchmarks/against_uniform.py",
        UNIFORM,
        "From before `coded`, `codedternary` and `xor`, with `--recovery fast` and losses by `separable`.",
    ),
    Shown(
        "Allocations of other tools",
        "xeon-amx",
        ("2026-11-29-allocation.json",),
        "",
        ALLOCATION,
        BITS + " Losses by `tempered`.",
        peers,
    ),
    Shown(
        "Allocations of other tools for EfficientNet-Lite0",
        "epyc-zen5",
        ("2026-11-30-allocation-efficientnet.json",),
        "",
        ALLOCATION,
        BITS + " Losses by `tempered` at temperature 3.",
        peers,
    ),
    Shown(
        "Allocations of other tools, on another machine",
        "epyc-zen4",
        ("2026-11-22-allocation.json",),
        "",
        ALLOCATION,
        BITS + " Losses by `separable`.",
        peers,
    ),
    Shown(
        "Predicted against measured latency",
        "epyc-zen4",
        ("2026-11-22-latency.json",),
        "python benchmarks/latency_prediction.py --policies 12",
        (text("network"), percent("median_error", "median error", ".1f"), percent("worst_error", "worst error", ".1f")),
        rows_of=lambda content: content["networks"],
    ),
    Shown(
        "Time of a plan from stored profiles",
        "epyc-zen5",
        ("planning-time.json",),
        "python benchmarks/planning_time.py",
        (
            number("budget_bytes", "budget, bytes", ",.0f"),
            number("latency_ms", "latency target, ms"),
            ("seconds, median", lambda row: f"{sorted(row['seconds'])[len(row['seconds']) // 2]:.2f}"),
            ("status", lambda row: row["certificate"]["status"]),
            ("gap, %", lambda row: f"{100 * row['certificate']['gap']:.2f}"),
        ),
        "60 layers of 12 variants.",
        lambda content: content["rows"],
    ),
    Shown(
        "Solvers, 10 s each: objective above the best one found",
        "epyc-zen5",
        ("2026-11-29-solvers-baselines-10s.json",),
        "python benchmarks/solvers.py benchmarks/instances/*variants*.arrow --time-limit 10",
        (text("instance"), *map(above_best, SOLVERS)),
        "`none`: no feasible choice in time.",
        side_by_side,
    ),
    *(
        Shown(
            f"The solver of `optimize plan`, {limit} s",
            "xeon-amx",
            (f"2026-11-29-solvers-{limit}s.json",),
            f"python benchmarks/solvers.py {which} --only bitplan --time-limit {limit}",
            SOLVED,
        )
        for limit, which in (
            (10, "benchmarks/instances/*.arrow"),
            (60, "benchmarks/instances/*.arrow"),
            (300, "benchmarks/instances/resnet44-10variants-*.arrow"),
        )
    ),
    Shown(
        "Loss estimators on ResNet-20, recovery `fast`",
        "epyc-zen4",
        ("estimators-resnet20.json",),
        "python benchmarks/estimators.py resnet20 --estimators tempered gram hessian-trace orthogonality",
        ESTIMATORS,
    ),
    Shown(
        "Loss estimators on ResNet-20, recovery `balanced`",
        "xeon-amx",
        ("estimators-resnet20-balanced.json",),
        "python benchmarks/estimators.py resnet20 --recovery balanced --measured-under balanced fast --estimators tempered",
        ESTIMATORS,
    ),
    Shown(
        "Loss estimators on EfficientNet-Lite0",
        "xeon-amx",
        ("estimators-efficientnet_lite0.json",),
        "python benchmarks/estimators.py efficientnet_lite0 --estimators tempered",
        ESTIMATORS,
    ),
    Shown(
        "Which pairs of choices CLADO may leave out",
        "xeon-amx",
        ("pairs-resnet20.json",),
        "python benchmarks/pairs.py",
        (
            text("rule"),
            number("pairs", form=",.0f"),
            percent("of_naive", "of all passes", ".1f"),
            text("unchanged", "plans unchanged"),
            text("budgets", "of"),
        ),
    ),
    Shown(
        "Recovery, ResNet-20",
        "epyc-zen5",
        ("2026-11-29-recovery-resnet20.json",),
        "python benchmarks/recovery.py resnet20 --policies int8,int4,int3,int2,ternary,mixed,int4@u4 --steps balanced",
        RECOVERY,
        rows_of=last_steps,
    ),
    Shown(
        "Recovery, ResNet-20, int2",
        "xeon-amx",
        ("2026-11-29-recovery-resnet20.json",),
        "python benchmarks/recovery.py resnet20 --policies int2 --images 1000",
        RECOVERY,
    ),
    Shown(
        "Recovery, ResNet-20, all steps",
        "epyc-zen5",
        ("2026-11-30-recovery-blocks.json",),
        "python benchmarks/recovery.py resnet20 --policies int2,ternary --steps equalise,correct,reconstruct,blocks,tune",
        RECOVERY,
    ),
    Shown(
        "Recovery, ResNet-20, 256 calibration images",
        "xeon-amx",
        ("2026-11-29-recovery-resnet20-256.json",),
        "python benchmarks/recovery.py resnet20 --policies ternary,apb:kept=0.02 --steps balanced --images 1000 --calibration 256",
        RECOVERY,
    ),
    Shown(
        "Activation ranges, ResNet-20",
        "epyc-zen5",
        ("2026-11-29-ranges-resnet20.json",),
        "python benchmarks/recovery.py resnet20 --policies int4,int4@u4,int4@u2,int2,int2@u4,int2@u2 --steps fast "
        "--ranges mse,percentile,kl,minmax",
        (text("policy"), text("ranges"), text("step"), *RECOVERY[2:]),
    ),
    Shown(
        "Pruning, ResNet-20",
        "xeon-amx",
        ("2026-11-29-pruning-resnet20.json",),
        "python benchmarks/pruning.py resnet20 --calibration 256 --variants pruned:kept=0.3",
        (
            text("variant"),
            text("way"),
            number("bytes", form=",.0f"),
            number("held_back_kl", "held-back KL"),
            percent("not_zero", "not zero", ".1f"),
        ),
    ),
    Shown(
        "Ways to store sparse signs: networks of XOR gates on random weights",
        "epyc-zen5",
        ("2026-11-30-coding-networks.json",),
        "python benchmarks/coding.py gaussian laplace --parts networks",
        CODING,
    ),
    Shown(
        "Ways to store sparse signs: a trained layer",
        "epyc-zen5",
        ("2026-11-30-coding-vgg6.json",),
        "python benchmarks/coding.py vgg6/fc1 --parts entropy xor-signs networks",
        CODING,
    ),
    Shown(
        "Ways to store sparse signs: registers, and decoding in C++",
        "epyc-zen5",
        ("2026-11-30-coding-xor.json",),
        "python benchmarks/coding.py gaussian vgg6/fc1 --parts register xor-signs networks",
        (*CODING, number("runtime_speed", "C++, million weights/s", ".0f")),
    ),
    Shown(
        "Entropy-coded levels",
        "xeon-amx",
        ("2026-11-29-entropy-synthetic.json",),
        "python benchmarks/entropy.py",
        (
            text("levels"),
            number("bits", "bits per level", ".4f"),
            number("entropy", form=".4f"),
            number("megabytes_per_second", "decoded MB/s", ".0f"),
        ),
        rows_of=lambda content: content["synthetic"],
    ),
    Shown(
        "Entropy-coded ternary layers of trained networks",
        "epyc-zen5",
        ("2026-11-30-entropy-sparse.json",),
        "python benchmarks/entropy.py resnet20 resnet44 vgg6 efficientnet_lite0 --parts sparse",
        (
            text("network"),
            text("weights"),
            number("bits", "bits per weight", ".4f"),
            number("entropy", "order-0 entropy", ".4f"),
        ),
        "The 12 % largest of each layer, by channel norms; everything counted but scales, over all layers.",
        rows_of=lambda content: [row for row in content["sparse"] if row["levels"] == "all layers"],
    ),
    Shown(
        "kill -9 of a frontier, the embedded example",
        "xeon-amx",
        ("kills-example-frontier.json",),
        "python benchmarks/kills.py --encodings int8 int4 int2 ternary binary apb --scenarios frontier",
        KILLED,
    ),
    Shown(
        "kill -9 of profiling pairs (clado), the embedded example",
        "epyc-zen5",
        ("kills-example-clado.json",),
        "python benchmarks/kills.py --encodings int8 int4 int2 ternary binary apb --loss-size 16 "
        "--scenarios 'profile clado --jobs 2'",
        KILLED,
    ),
    Shown(
        "kill -9 of recovery and training, the embedded example",
        "epyc-zen5",
        ("kills-example-finetune.json",),
        "python benchmarks/kills.py --encodings int8 int4 int2 ternary apb coded --loss-size 32 --scenarios 'realise --finetune'",
        KILLED,
        "Units are layers recovered and epochs; the artifact and the trained weights are the same to the last bit.",
    ),
)

PEERS = (
    "epyc-zen4",
    ("2026-11-22-peers-convolutions.json", "2026-11-22-peers-bits.json", "2026-11-22-peers-networks.json"),
)


def peers_rows() -> list[Any]:
    """The kernels against their peers: rows that have a bar."""
    machine, files = PEERS
    found = with_bars(rows(*read([RESULTS / machine / name for name in files])), BARS)
    return [row for row in found if row.bar is not None]
