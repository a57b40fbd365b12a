"""Which pairs of choices CLADO may leave out: plans with a part of the pairs evaluated, against plans with all of them.

    python benchmarks/pairs.py [--network resnet20] [--images 64] [--shares 6 8] [--cache FOLDER] [--json FILE]

All pairs of six variants are evaluated once (kept in --cache; a run that was interrupted goes on). Then every rule orders
the pairs, and the first of them are taken, up to one part in 6 (8, ...) of the passes that evaluating each pair in full would
take; the others keep what `gram` says, times the factor by which the evaluated ones are larger or smaller than that. Counted
are budgets (bits per weight) with the plan that all pairs give, and the mean excess of the score of the plans, measured with
all pairs. Plans are the best of several local searches (moves and exchanges), which take seconds and prove nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from against_peers import machine_folder
from estimators import BITS, Bench
from networks import cases
from numpy.typing import NDArray

from bitplan.atomic_file import write_atomically
from bitplan.kernels.artifact import constant_bytes, layer_bytes
from bitplan.policies.realise.front import default_batch
from bitplan.profiles.estimators.clado import NEGLIGIBLE, Clado, matter
from bitplan.profiles.estimators.cost import shares_left
from bitplan.profiles.journal import Journal
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.loss_walk import Job, Place
from bitplan.profiles.quadratic import quadratic, score
from bitplan.profiles.workers import one_thread
from bitplan.variant import Variant

VARIANTS = tuple(Variant(name) for name in ("int8", "int4", "int3", "int2", "ternary", "binary"))

RESTARTS = 12

Matrix = NDArray[np.float64]


class Study:
    """All pairs of one network, and what a part of them gives."""

    def __init__(self, bench: Bench, images: int) -> None:
        case = self.case = bench.case
        self.bench = bench
        choices = frozenset((node.name, variant) for node in case.network.layers for variant in VARIANTS)
        shown = case.calibration[:images]
        job = Job(case.network, case.weights, shown, choices, "kl", None, default_batch(case.network), 3 << 30)
        key = json.dumps([case.name, images])
        with Journal(bench.cache / f"{case.name}.{images}.journal", key) as journal, one_thread():
            every = Clado(negligible=0).measure(job, journal)
            none = Clado(negligible=np.inf).measure(job, journal)
        hashes = {"network": case.network.content_hash, "weights": "", "data": "", "encodings": ""}
        self.whole = LossProfile("kl", hashes, every.increases, "clado", every.pairs)
        self.losses = np.array([self.whole.loss(*choice) for choice in self.whole.choices])
        assert every.pairs is not None
        assert none.pairs is not None
        assert none.pair_errors is not None
        self.pairs, self.predicted, self.errors = every.pairs, none.pairs, none.pair_errors
        left = shares_left(case.network)
        order = {node.name: number for number, node in enumerate(case.network.layers)}
        behind = {node.name: left[Place(case.network, node, choices).start] for node in case.network.layers}
        layers = [layer for layer, _ in self.whole.choices]
        self.layers = np.array([list(dict.fromkeys(layers)).index(layer) for layer in layers])
        nodes = case.network.by_name
        self.sizes = np.array([layer_bytes(case.network, nodes[x], v) for x, v in self.whole.choices], np.float64)
        self.at = np.array([(a, b) for a, x in enumerate(layers) for b, y in enumerate(layers) if order[x] < order[y]])
        self.passes = np.array([behind[layers[b]] for _, b in self.at])
        self.first = sum(behind[layer] for layer in layers)
        """The values with each choice alone in place, moved to the end."""

    def of(self, pairs: Matrix) -> Matrix:
        """Entries of a matrix [choices, choices] by pair."""
        return np.asarray(pairs[self.at[:, 0], self.at[:, 1]])

    def taken(self, priority: Matrix, passes: float) -> NDArray[np.bool_]:
        """The pairs of the highest priority that fit into so many forward passes."""
        order = np.argsort(-priority, kind="stable")
        fitting = self.first + np.cumsum(self.passes[order]) <= passes
        mask = np.zeros(len(order), bool)
        mask[order[fitting]] = True
        return mask

    def profile(self, mask: NDArray[np.bool_], scaled: bool = True) -> LossProfile:
        """The profile with the pairs of the mask evaluated."""
        true, guess = self.of(self.pairs), self.of(self.predicted)
        known, norm = guess[mask], float(np.square(guess[mask]).sum())
        factor = float(true[mask] @ known) / norm if scaled and norm else 1.0
        filled = np.zeros_like(self.pairs)
        filled[self.at[:, 0], self.at[:, 1]] = np.where(mask, true, factor * guess)
        return replace(self.whole, pairs=filled + filled.T)

    def rules(self) -> dict[str, Callable[[], Matrix]]:
        """By name, the priority of each pair."""
        roots = np.sqrt(np.maximum(self.losses, 0))
        bound = 2 * self.of(np.outer(roots, roots))
        guess, errors = np.abs(self.of(self.predicted)), self.of(self.errors)
        return {
            "bound": lambda: bound,
            "bound / cost": lambda: bound / self.passes,
            "gram": lambda: guess,
            "gram / cost": lambda: guess / self.passes,
            "gram + 2 errors": lambda: guess + 2 * errors,
            "bound x sqrt(1 / cost)": lambda: bound / np.sqrt(self.passes),
            "oracle: error of gram": lambda: np.abs(self.of(self.pairs) - self.of(self.predicted)),
        }


def local_search(q: Matrix, sizes: Matrix, layers: NDArray[np.int64], room: float) -> NDArray[np.int64]:
    """The best of RESTARTS descents by moves and exchanges: one choice for each layer, least score, within the bytes."""
    random, diagonal, every = np.random.default_rng(0), np.diag(q), np.arange(len(q))
    options = [np.flatnonzero(layers == layer) for layer in range(layers.max() + 1)]
    best, least = np.array([own[np.argmin(sizes[own])] for own in options]), np.inf
    for restart in range(RESTARTS):
        noisy = diagonal * np.exp(random.normal(0, 0.6 * (restart > 0), len(q)))
        x = np.array([own[np.argmin(sizes[own])] for own in options])
        for price in np.geomspace(1e-12, 1e12, 200):
            x = np.array([own[np.argmin(noisy[own] + price * sizes[own])] for own in options])
            if sizes[x].sum() <= room:
                break
        while True:
            old = x[layers]
            pull = q[:, x].sum(1)
            move = diagonal - diagonal[old] + 2 * (pull - q[every, old] - pull[old] + diagonal[old])
            grown = sizes - sizes[old]
            left = room - sizes[x].sum()
            meeting = q - q[:, old] - q[old, :] + q[np.ix_(old, old)]
            both = move[:, None] + move[None, :] + 2 * meeting
            fits = (layers[:, None] != layers[None, :]) & (grown[:, None] + grown[None, :] <= left)
            both, move = np.where(fits, both, np.inf), np.where(grown <= left, move, np.inf)
            a, b = np.unravel_index(both.argmin(), both.shape)
            if min(move.min(), both[a, b]) > -1e-10:
                break
            for changed in [move.argmin()] if move.min() <= both[a, b] else [a, b]:
                x[layers[changed]] = changed
        if (found := float(q[np.ix_(x, x)].sum())) < least - 1e-12 and sizes[x].sum() <= room:
            best, least = x.copy(), found
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--shares", nargs="+", type=float, default=[6.0])
    parser.add_argument("--bits", nargs="+", type=float, default=list(BITS))
    parser.add_argument("--cache", type=Path, default=Path("build/pairs"))
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/<machine>/pairs-<network>.json")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    [case] = cases([arguments.network])
    study = Study(Bench(case, 0, arguments.cache), arguments.images)
    matrix = quadratic(study.whole)
    correlation = np.corrcoef(study.of(study.pairs), study.of(study.predicted))[0, 1]
    print(f"{len(study.at)} pairs; correlation with what gram says {correlation:.3f}", flush=True)

    sizes = study.sizes

    def plans(profile: LossProfile) -> list[dict[str, Variant]]:
        q = quadratic(profile)
        room = [(study.bench.budget(bits).bytes or 0) - constant_bytes(case.network) for bits in arguments.bits]
        found = [local_search(q, sizes, study.layers, size) for size in room]
        return [dict(profile.choices[number] for number in numbers) for numbers in found]

    best = plans(study.whole)
    scores = np.array([score(study.whole, matrix, plan) for plan in best])
    rows: list[dict[str, Any]] = []

    def tell(rule: str, mask: NDArray[np.bool_], scaled: bool) -> None:
        found = plans(study.profile(mask, scaled))
        excess = np.array([score(study.whole, matrix, plan) for plan in found]) / scores - 1
        passes = study.first + float(study.passes[mask].sum())
        row = {
            "rule": rule,
            "pairs": int(mask.sum()),
            "of_naive": passes / len(study.at),
            "unchanged": sum(a == b for a, b in zip(best, found, strict=True)),
            "budgets": len(best),
            "excess": [float(value) for value in excess],
        }
        rows.append(row)
        print(
            f"| {rule} | {row['pairs']} | 1/{1 / row['of_naive']:.1f} | {row['unchanged']} of {len(best)} | "
            f"{100 * excess.mean():+.2f} % |",
            flush=True,
        )

    print("| rule | pairs | of naive | plans unchanged | mean excess of the score |")
    wanted = matter(list(study.whole.choices), study.losses, NEGLIGIBLE)
    choices = study.whole.choices
    tell("what clado does", np.array([(choices[a], choices[b]) in wanted for a, b in study.at]), False)
    for share in arguments.shares:
        for name, priority in study.rules().items():
            tell(name, study.taken(priority(), len(study.at) / share), True)
    tell("no pair", np.zeros(len(study.at), bool), False)
    write_atomically(
        arguments.json or machine_folder() / f"pairs-{case.name}.json", json.dumps(rows, indent=1).encode()
    )


if __name__ == "__main__":
    main()
