"""Trains the embedded example network on Fashion-MNIST and writes what the package ships.

    python examples/train_example_network.py [--data DIR] [--epochs 18]

DIR holds the four idx files of Fashion-MNIST (MIT licence, Zalando SE), gzipped or not; Debian's package
`dataset-fashion-mnist` puts them where this script looks first, elsewhere torchvision downloads them.
Writes `weights.safetensors` and `images.npz` (512 calibration images taken from the training set, 2,000
class-balanced test images) into `bitplan/example/`, and prints the accuracy on all 10,000 test images.
"""

from __future__ import annotations

import argparse
import gzip
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from bitplan.example.network import ExampleNetwork

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
TARGET_FOLDER = Path(__file__).resolve().parent.parent / "bitplan" / "example"
MEAN, STD = 72.94, 90.02  # of the training images, on the 0..255 scale


def read_idx(folder: Path, stem: str) -> np.ndarray:
    """Reads one idx file (big-endian header: two zero bytes, type 8 = uint8, number of dimensions, sizes)."""
    path = folder / f"{stem}-ubyte"
    raw = path.read_bytes() if path.exists() else gzip.decompress((folder / f"{stem}-ubyte.gz").read_bytes())
    dimensions = raw[3]
    shape = np.frombuffer(raw, ">i4", dimensions, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def load(folder: Path | None) -> tuple[np.ndarray, ...]:
    if folder is None and DEBIAN_FOLDER.exists():
        folder = DEBIAN_FOLDER
    if folder is None:
        import torchvision

        torchvision.datasets.FashionMNIST("data", download=True)
        folder = Path("data/FashionMNIST/raw")
    return tuple(
        read_idx(folder, f"{part}-{kind}") for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    )


def normalised(images: np.ndarray) -> torch.Tensor:
    return ((torch.from_numpy(images.copy()).float() - MEAN) / STD).unsqueeze(1)


def augmented(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random mirror image, and a random shift by up to two pixels, per image."""
    n = len(x)
    mirrored = torch.rand(n, generator=generator) < 0.5
    x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(3), x)
    padded = functional.pad(x, (2, 2, 2, 2), value=-MEAN / STD)
    dy, dx = (torch.randint(0, 5, (n, 1, 1), generator=generator) for _ in range(2))
    rows, columns = torch.arange(28).view(1, -1, 1) + dy, torch.arange(28).view(1, 1, -1) + dx
    return padded[torch.arange(n).view(-1, 1, 1), 0, rows, columns].unsqueeze(1)


@torch.inference_mode()
def accuracy(network: ExampleNetwork, x: torch.Tensor, y: torch.Tensor) -> float:
    network.eval()
    hits = sum(int((network(x[i : i + 500]).argmax(1) == y[i : i + 500]).sum()) for i in range(0, len(x), 500))
    return hits / len(x)


def train(network: ExampleNetwork, x: torch.Tensor, y: torch.Tensor, epochs: int, batch: int = 128) -> None:
    generator = torch.Generator().manual_seed(1)
    steps = epochs * (len(x) // batch)
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.2, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        network.train()
        start, total = time.time(), 0.0
        order = torch.randperm(len(x), generator=generator)
        for i in range(0, len(x) - batch + 1, batch):
            chosen = order[i : i + batch]
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(augmented(x[chosen], generator).contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits.float(), y[chosen], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(
            f"epoch {epoch + 1}/{epochs} loss {total / (len(x) // batch):.4f} {time.time() - start:.0f} s", flush=True
        )


def balanced(labels: np.ndarray, per_class: list[int], generator: np.random.Generator) -> np.ndarray:
    """Indices of a shuffled selection that has `per_class[c]` images of class c."""
    chosen = np.concatenate(
        [generator.permutation(np.flatnonzero(labels == c))[:count] for c, count in enumerate(per_class)]
    )
    return generator.permutation(chosen)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--epochs", type=int, default=18)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    train_x, train_y, test_x, test_y = load(arguments.data)
    network = ExampleNetwork().to(memory_format=torch.channels_last)
    train(network, normalised(train_x), torch.from_numpy(train_y).long(), arguments.epochs)
    test = accuracy(network, normalised(test_x), torch.from_numpy(test_y).long())
    print(f"test accuracy {test:.4f} on {len(test_y)} images")

    generator = np.random.default_rng(0)
    calibration = balanced(train_y, [52, 52] + [51] * 8, generator)
    held_out = balanced(test_y, [200] * 10, generator)
    state = {k: v.contiguous() for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(state, TARGET_FOLDER / "weights.safetensors")
    np.savez_compressed(
        TARGET_FOLDER / "images.npz",
        calibration_x=train_x[calibration][:, None],
        calibration_y=train_y[calibration],
        test_x=test_x[held_out][:, None],
        test_y=test_y[held_out],
    )


if __name__ == "__main__":
    main()
