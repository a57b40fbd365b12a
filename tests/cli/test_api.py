"""The main job from Python."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitplan
from bitplan.config import load_config
from bitplan.errors import DataError, InfeasibleError, UsageError
from bitplan.policies.policy_file import read_policy

torch = pytest.importorskip("torch")

OPTIONS: dict[str, Any] = {
    "encodings": ["float32", "int8", "int4"],
    "recovery": ["fast"],
    "link_policies": 0,
    "quiet": True,
}


class Cells(HTMLParser):
    """The text of a page's cells, after checking that its tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


def module() -> tuple[Any, dict[str, Any]]:
    import tiny_network  # type: ignore[import-not-found]

    built: tuple[Any, dict[str, Any]] = tiny_network.build()
    return built


@pytest.fixture
def images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(folder))
    with np.load(folder / "data.npz") as arrays:
        return dict(arrays)


def test_a_plan_is_carried_out_and_runs(images: dict[str, Any], folder: Path) -> None:
    network, info = module()
    plan = bitplan.plan(network, images, size=np.int64(3000), info=info, **OPTIONS)
    assert plan.policy.targets.bytes == 3000
    result = plan.realise(folder / "out")
    assert result.artifact_path is not None
    assert result.artifact_path.stat().st_size <= 3000
    assert read_policy(folder / "out" / "policy.json").variants == plan.policy.variants
    outputs = bitplan.load(result.artifact_path)(images["test_x"][:1])
    assert outputs.shape == (1, 4)
    assert np.array_equal(bitplan.load(folder / "out")(images["test_x"][:1]), outputs)
    assert (folder / "out" / "device.arrow").exists()
    assert (folder / "out" / "loss.arrow").exists()
    assert len(repr(plan)) < 200
    assert load_config(folder / "out" / "optimize.yaml")["model"] == "given from Python"  # not the embedded example


def test_the_same_as_the_command(images: dict[str, Any], tiny: Any) -> None:
    network, info = module()
    plan = bitplan.plan(network, images, size="3kB", info=info, **OPTIONS)
    called = tiny(
        "--budget", "3kB", "--recovery", "fast", "--link-policies", "0", "-o", "out", menu="float32,int8,int4"
    )
    assert called.code == 0, called.err
    assert [layer["encoding"] for layer in called.json["layers"]] == [str(v) for v in plan.policy.variants.values()]


def test_notebooks_show_plans_profiles_and_frontiers(images: dict[str, Any]) -> None:
    network, info = module()
    plan = bitplan.plan(network, (images["calibration_x"], None), size=4000, info=info, test_size=8, **OPTIONS)
    for noun, wanted in (
        (plan, ["conv1", plan.policy.certificate.status]),
        (plan.device, [plan.device.fingerprint.cpu]),
        (plan.frontier(points=4), ["point", "efficient"]),
    ):
        cells = Cells(noun._repr_html_()).cells
        assert set(wanted) <= set(cells)


def test_what_cannot_be_used_is_said(images: dict[str, Any]) -> None:
    network, info = module()
    with pytest.raises(UsageError, match=r"unknown key 'encoding'.*encodings"):
        bitplan.plan(network, images, encoding=["int8"])
    with pytest.raises(UsageError, match="data is a ndarray"):
        bitplan.plan(network, images["test_x"], quiet=True)
    with pytest.raises(UsageError, match=r"Plan\.realise"):
        bitplan.plan(network, images, output="out")
    with pytest.raises(DataError, match="data holds 'images'"):
        bitplan.plan(network, {"images": images["test_x"]}, info=info, quiet=True)
    with pytest.raises(InfeasibleError, match="file size"):
        bitplan.plan(network, images, size=10, info=info, **OPTIONS)
    with pytest.raises(AttributeError, match="no attribute 'plans'"):
        _ = bitplan.plans  # type: ignore[attr-defined]
