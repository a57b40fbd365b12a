"""Ways to store sparse signs: bits per weight, what is kept of the weights, decoding time and bytes in memory.

python benchmarks/coding.py [SOURCE ...] [--rows 64] [--parts entropy networks ...] [--json FILE]

SOURCE: gaussian, laplace (4096 columns, memoryless: size changes nothing but the cost of the scales), NETWORK/LAYER of
benchmarks/networks.py such as vgg6/fc1, or NETWORK for its largest linear layer. Everything is counted: masks, signs,
patches, counts, coder states, and 16 bits of scale and bias per row; ideal codes are marked as such. kept: share of the
energy sum w^2 in weights that come back with the right sign; error: ||w - s t||^2 / ||w||^2 with the least-squares
scale s of each row; ns: processor time per weight of decoders in numpy, for comparison among themselves; C++: million weights
per second of processor time that the runtime decodes at load.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from coders import masks, rans
from coders.rate_distortion import least_error, most_kept, quantised_source
from coders.xor_slices import XorSlices, best_slices
from numpy.typing import NDArray

from bitplan.encodings.bits import elias_fano_size
from bitplan.encodings.xor import Xor, rate_of
from bitplan.kernels._runtime import decode_xor
from bitplan.network import WeightShape
from bitplan.variant import Variant

Weights = NDArray[np.float32]
Levels = NDArray[np.int8]
SCALE_BITS = 16
"""Of a row: 8 of its scale and 8 of its bias, as artifacts hold them of coded and xor layers."""


class Sparser(Xor):
    """`xor` with a network that leaves 91 % pruned on trained layers too, at a little more error."""

    def density(self, variant: Variant) -> int:
        return 17


@dataclass
class Row:
    source: str
    coder: str
    bits: float
    kept: float
    error: float
    pruned: float
    resident_bits: float
    decode_ns: float | None = None
    runtime_speed: float | None = None


def row(source: str, coder: str, weights: Weights, levels: Levels, bits: float, resident: float, **other: Any) -> Row:
    energy = (weights**2).sum(dtype=np.float64)
    fitted = (weights * levels).sum(1) ** 2 / np.maximum(np.abs(levels).sum(1), 1)
    kept = float((weights[weights * levels > 0] ** 2).sum(dtype=np.float64) / energy)
    error = 1 - float(fitted.sum(dtype=np.float64) / energy)
    total = bits / weights.size + SCALE_BITS / weights.shape[1]
    return Row(source, coder, total, kept, error, float((levels == 0).mean()), resident, **other)


def timed(decode: Callable[[], object], count: int) -> float:
    """Nanoseconds of processor time per weight, least of three."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        decode()
        taken.append(time.process_time() - start)
    return 1e9 * min(taken) / count


def share_of_bits(bits: float) -> float:
    """The share of largest weights whose mask and signs have an entropy of `bits` per weight."""
    shares = np.linspace(1e-4, 0.5, 50_000)
    entropy = -shares * np.log2(shares) - (1 - shares) * np.log2(1 - shares) + shares
    return float(np.interp(bits, entropy, shares))


def entropy_coders(source: str, weights: Weights) -> Iterator[Row]:
    signs, size = np.sign(weights).astype(np.int8), weights.size
    for share in (share_of_bits(0.25), share_of_bits(0.28), 0.09):
        mask = masks.largest(weights**2, share)
        levels, kept = signs * mask, int(mask.sum())
        name = f"largest {100 * share:.1f} %"
        yield row(source, f"{name}, entropy (ideal)", weights, levels, masks.enumerative_bits(mask) + kept, 2)
        symbols = (levels + 1).ravel().astype(np.uint8)
        coded = rans.encode(symbols)
        if not np.array_equal(rans.decode(coded), symbols):
            raise SystemExit("rANS lost a symbol")
        taken = timed(lambda coded=coded: rans.decode(coded), size)
        yield row(source, f"{name}, rANS", weights, levels, coded.bits, 2, decode_ns=taken)
        packed = np.packbits(np.unpackbits(symbols[:, None], axis=1)[:, 6:].ravel()).tobytes()
        small = pyarrow.Codec("zstd", 19).compress(packed, asbytes=True)
        taken = timed(lambda small=small, packed=packed: pyarrow.decompress(small, len(packed), "zstd"), size)
        yield row(source, f"{name}, zstd -19", weights, levels, 8 * len(small), 2, decode_ns=taken)
        if share == 0.09:
            yield row(source, f"{name}, bitmap + signs", weights, levels, size + kept, 2)


def xor_signs(source: str, weights: Weights) -> Iterator[Row]:
    """SQNN proper: signs through an XOR network, each with one way to store the mask."""
    energy, size = weights**2, weights.size
    free = masks.largest(energy, 0.09)
    rank = next(rank for rank in range(64, 0, -1) if 2 * rank / 128 <= 0.165)
    chosen = [
        ("largest 9 %, bitmap", free, float(size)),
        ("largest 9 %, Elias-Fano", free, 8.0 * elias_fano_size(int(free.sum()), size)),
        ("largest 9 %, entropy (ideal)", free, masks.enumerative_bits(free)),
        ("1 of 11", masks.one_of(energy, 11), size / 11 * log2(11)),
        ("1 of 20", masks.one_of(energy, 20), size / 20 * log2(20)),
    ]
    if min(weights.shape) >= 128:
        product = np.zeros(weights.shape, bool)
        made = masks.low_rank(energy, 128, rank, 0.09)
        product[: made.shape[0], : made.shape[1]] = made
        chosen.append((f"product of rank {rank} by tiles of 128", product, 2.0 * rank / 128 * made.size))
    for name, mask, bits in chosen:
        signs, kept = (weights > 0).ravel(), int(mask.sum())
        coder = best_slices(signs, mask.ravel(), 40)
        words, patches = coder.encode(signs, mask.ravel())
        decoded = coder.decode(words, patches, mask.ravel())
        if not np.array_equal(decoded, signs[mask.ravel()]):
            raise SystemExit("an XOR code lost a sign")
        total = bits + coder.stored_bits(words, patches, kept)
        taken = timed(lambda c=coder, w=words, p=patches, m=mask: c.decode(w, p, m.ravel()), size)
        levels = np.where(mask, np.where(weights > 0, 1, -1), 0).astype(np.int8)
        label = f"{name}; XOR signs {coder.inputs}/{coder.outputs}"
        yield row(source, label, weights, levels, total, 2, decode_ns=taken)


def register_signs(source: str, weights: Weights, count: int = 1 << 17) -> Iterator[Row]:
    """The same with a shift register and Viterbi, on the first weights."""
    rows = weights[: max(count // weights.shape[1], 1)]
    mask = masks.largest(rows**2, 0.09)
    signs = (rows > 0).ravel()
    coder = XorSlices(8, 80, register=True)
    words, patches = coder.encode(signs, mask.ravel())
    bits = masks.enumerative_bits(mask) + coder.stored_bits(words, patches, int(mask.sum()))
    levels = np.where(mask, np.where(rows > 0, 1, -1), 0).astype(np.int8)
    yield row(source, "largest 9 %, entropy (ideal); XOR signs 8/80, register", rows, levels, bits, 2)


def networks(source: str, weights: Weights) -> Iterator[Row]:
    """Mask and signs out of the network: the encoding `xor`."""
    shape = WeightShape(*weights.shape)
    rates = (0.234375, 0.25, 0.265625, 0.28125, 0.5, 1.0)
    for encoding, bits in [*((Sparser(), bits) for bits in rates[:2]), *((Xor(), bits) for bits in rates)]:
        variant = Variant("xor", "u8", (("bits", bits),))
        layer = encoding.quantise(weights[:, :, None, None], np.zeros(len(weights), np.float32), variant)
        packed = encoding.pack(layer)
        taken = timed(lambda e=encoding, p=packed, v=variant: e.unpack(p, shape, v), weights.size)
        data, rate = layer.code.tobytes(), rate_of(variant)
        fast = timed(lambda d=data, r=rate: decode_xor(d, weights.size, r), weights.size)
        stored = 8 * len(packed) - SCALE_BITS * len(weights)
        levels = layer.levels.reshape(weights.shape)
        name = f"{variant}, density 17" if isinstance(encoding, Sparser) else str(variant)
        yield row(source, name, weights, levels, stored, 2, decode_ns=taken, runtime_speed=1e3 / fast)


def bounds(source: str, weights: Weights) -> Iterator[Row]:
    magnitudes = quantised_source(weights)
    for bits in (0.25, 0.28, 0.5, 1.0):
        error = least_error(magnitudes, bits)
        kept = most_kept(magnitudes, bits, 0.09) if bits < 0.5 else float("nan")
        yield Row(source, "bound: any code, memoryless weights, 91 % pruned for `kept`", bits, kept, error, 0.91, 2)


def weights_of(source: str, rows: int) -> Weights:
    rng = np.random.default_rng(7)
    if source == "gaussian":
        return rng.normal(size=(rows, 4096)).astype(np.float32)
    if source == "laplace":
        return rng.laplace(size=(rows, 4096)).astype(np.float32)
    from networks import cases

    name, _, layer = source.partition("/")
    (case,) = cases([name])
    found = {node.name: case.weights[f"{node.name}.weight"] for node in case.network.layers}
    if not layer:
        layer = max(found, key=lambda key: found[key].size * (found[key].ndim == 2 or found[key][0, 0].size == 1))
    return found[layer].reshape(len(found[layer]), -1).astype(np.float32)


PARTS: dict[str, Callable[[str, Weights], Iterator[Row]]] = {
    "entropy": entropy_coders,
    "xor-signs": xor_signs,
    "register": register_signs,
    "networks": networks,
    "bounds": bounds,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", default=["gaussian", "laplace", "vgg6"])
    parser.add_argument("--rows", type=int, default=64, help="rows of the random layers")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    records: list[dict[str, Any]] = []
    for source in arguments.sources:
        weights = weights_of(source, arguments.rows)
        print(f"\n**{source}** {weights.shape[0]} x {weights.shape[1]}\n")
        print(
            "| coder | bits / weight | kept | error | pruned | ns | C++ | resident |\n|---|---:|---:|---:|---:|---:|---:|---:|"
        )
        for part in arguments.parts:
            for found in PARTS[part](source, weights):
                records.append(asdict(found))
                taken = "" if found.decode_ns is None else f"{found.decode_ns:.1f}"
                speed = "" if found.runtime_speed is None else f"{found.runtime_speed:.0f}"
                print(
                    f"| {found.coder} | {found.bits:.4f} | {found.kept:.3f} | {found.error:.4f} | "
                    f"{found.pruned:.3f} | {taken} | {speed} | {found.resident_bits:g} |",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
