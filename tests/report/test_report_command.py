"""`optimize report` through the command: files, figures, comparison, what is left out, and errors."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from bitplan.policies.policy_file import read_policy
from bitplan.profiles.fingerprint import this_machine
from bitplan.report.facts import report_facts
from bitplan.report.folder import read_folder
from bitplan.report.page import page
from bitplan.report.step_times import StepTimes, write_step_times
from bitplan.report.text import NOTHING, written

Command = Callable[..., Any]
FACTORS = {"kB": 1e3, "MB": 1e6, "%": 0.01}
SECTIONS = ["targets", "layers", "frontier", "pairs", "measured", "recovery", "solver", "provenance", "missing"]
PLOTS = {"frontier-bytes", "frontier-latency", "latency", "layers", "pairs", "recovery"}


class Page(HTMLParser):
    """What a page refers to, its elements, its figures (path, value, text), and the data in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.references: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[list[str]] = []
        self.data = ""
        self.open = ""
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]
        self.open = "json" if attributes.get("id") == "data" else tag
        if tag == "data":
            self.figures.append([attributes["data-of"] or "", attributes["value"] or "", ""])

    def handle_data(self, data: str) -> None:
        if self.open == "json":
            self.data += data
        elif self.open == "data":
            self.figures[-1][2] += data

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    @property
    def sections(self) -> list[str | None]:
        return [attributes.get("id") for tag, attributes in self.tags if tag == "section"]


def facts_of(folder: str) -> dict[str, Any]:
    return report_facts(read_folder(Path(folder)))


def at(facts: Any, path: str) -> Any:
    for part in path.split("."):
        facts = facts[int(part)] if isinstance(facts, list) else facts[part]
    return facts


def test_the_page_shows_the_figures_of_the_json_and_loads_nothing(command: Command, folder: Path) -> None:
    called = command("report", "out", "--json")
    assert called.code == 0, called.err
    found = Page((folder / "out" / "report.html").read_text("utf-8"))
    assert json.loads(found.data) == called.json
    assert called.json["compare"] is None
    assert all(reference.startswith("#") for reference in found.references)
    assert "http" not in re.sub(r'"http://www.w3.org/2000/svg"|http-equiv', "", found.text)
    assert not {tag for tag, _ in found.tags} & {"link", "img", "iframe", "object", "embed"}
    assert len(found.figures) > 60
    for path, value, text in found.figures:
        assert json.loads(value) == at(called.json, path), path
        number, _, unit = text.replace(",", "").partition(" ")
        shown = float(number) * FACTORS.get(unit, 1)
        assert shown == pytest.approx(json.loads(value), rel=0.006, abs=0.0006), (path, text)
    assert found.sections == SECTIONS
    anchors = {attributes["id"] for _, attributes in found.tags if attributes.get("id")}
    assert {reference[1:] for reference in found.references} <= anchors
    labels = [name for _, attributes in found.tags for name in (attributes.get("aria-labelledby") or "").split()]
    assert set(labels) <= anchors


def test_the_facts_are_those_of_the_files(folder: Path) -> None:
    facts = facts_of("out")
    policy, result = read_policy(folder / "out" / "policy.json"), json.loads((folder / "out/result.json").read_text())
    assert [layer["name"] for layer in facts["layers"]] == [layer.name for layer in policy.layers]
    assert [layer["encoding"] for layer in facts["layers"]] == [str(layer.variant) for layer in policy.layers]
    assert sum(layer["loss_share"] for layer in facts["layers"]) == pytest.approx(1)
    totals = facts["totals"]
    assert totals["bytes"] + totals["rest_bytes"] == policy.predicted["file_bytes"] == result["file_bytes"]
    assert totals["predicted_ms"] + totals["rest_predicted_ms"] == pytest.approx(policy.predicted["latency_ms"])
    assert facts["frontier"]["chosen"] == "p00"
    latency, size = facts["targets"]
    assert (latency["limit"], latency["basis"], latency["met"]) == (1.0, "measured", True)
    assert latency["reached"] == result["measured_latency_ms"]["median"]
    assert (size["limit"], size["reached"], size["met"]) == (4500, result["file_bytes"], True)
    errors = {row["key"]: row["error"] for row in facts["quantities"]}
    assert errors["latency"] == pytest.approx(0.07)
    assert errors["file_bytes"] == 0
    values = facts["pairs"]["values"]
    assert all(values[i][j] == values[j][i] for i in range(4) for j in range(i))
    assert [step["kept"] for step in facts["recovery"]] == [True, True, False]
    assert facts["worth"]["drop"] == pytest.approx(0.015)
    assert facts["provenance"]["machine"]["cpu"] == "a processor"
    assert [row["what"] for row in facts["missing"]] == ["step-times.json"]


def test_every_plot_is_written_as_svg_and_png(command: Command, folder: Path) -> None:
    assert command("report", "out", "-o", "here/mine.html").code == 0
    files = sorted((folder / "here" / "mine-plots").iterdir())
    assert {path.stem for path in files} == PLOTS
    assert [path.suffix for path in files] == [".png", ".svg"] * len(PLOTS)
    for path in files:
        if path.suffix == ".svg":
            root = ElementTree.fromstring(path.read_text("utf-8"))
            assert [child.tag.rpartition("}")[2] for child in root][:2] == ["title", "desc"]
            assert all((child.text or "").strip() for child in root[:2])
        else:
            picture = Image.open(io.BytesIO(path.read_bytes())).convert("L")
            size = ElementTree.fromstring(path.with_suffix(".svg").read_text("utf-8")).attrib
            assert picture.size == (2 * round(float(size["width"])), 2 * round(float(size["height"])))
            assert len(set(picture.tobytes())) > 20  # something is drawn on it
    marks = (folder / "here" / "mine-plots" / "layers.svg").read_text("utf-8")
    assert marks.count('class="mark"') == 4


def test_a_comparison_names_what_differs(command: Command, folder: Path) -> None:
    called = command("report", "out", "--compare", "other", "--json")
    assert called.code == 0, called.err
    ours, theirs = (read_policy(folder / name / "policy.json") for name in ("out", "other"))
    compare = called.json["compare"]
    assert (compare["ours"], compare["theirs"]) == ("out", "other")
    changed = [name for name, variant in ours.variants.items() if theirs.variants[name] != variant]
    assert changed
    assert compare["changed"] == len(changed)
    size = next(row for row in compare["quantities"] if (row["name"], row["basis"]) == ("file", "predicted"))
    assert (size["ours"], size["theirs"]) == (ours.predicted["file_bytes"], theirs.predicted["file_bytes"])
    assert size["change"] == pytest.approx(size["ours"] / size["theirs"] - 1)
    assert "compare" in Page((folder / "out" / "report.html").read_text("utf-8")).sections
    plot = folder / "out" / "report-plots" / "compared-layers.svg"
    assert plot.exists()
    assert command("report", "out").code == 0
    assert not plot.exists()  # that of another report
    swapped = command("report", "--compare", "out", "other", "--json")  # either order of option and folder
    assert (swapped.json["compare"]["ours"], swapped.json["compare"]["theirs"]) == ("other", "out")


def test_layers_are_timed_on_request_and_the_times_are_kept(command: Command, folder: Path) -> None:
    called = command("report", "out", "--time", "--json")
    assert called.code == 0, called.err
    assert all(layer["measured_ms"] > 0 for layer in called.json["layers"])
    assert called.json["missing"] == []
    assert facts_of("out")["layers"] == called.json["layers"]
    assert (folder / "out" / "report-plots" / "layer-latency.png").exists()
    (folder / "out" / "step-times.json").rename(folder / "other" / "step-times.json")
    other = facts_of("other")
    assert "of another artifact" in other["missing"][0]["why"]
    assert other["layers"][0]["measured_ms"] is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latency_ms", "x"),
        ("latency_ms", None),
        ("latency_ms", float("nan")),
        ("steps_ms", {"a": True}),
        ("batch", "1"),
    ],
)
def test_damaged_times_are_left_out_with_the_reason(folder: Path, name: str, value: Any) -> None:
    artifact = hashlib.sha256((folder / "out" / "network.bitplan").read_bytes()).hexdigest()
    path = folder / "out" / "step-times.json"
    write_step_times(path, StepTimes(artifact, this_machine(), 1, 1, 0.5, {"a": 0.5}))
    assert "step-times.json" not in read_folder(folder / "out").missing
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    reason = {row["what"]: row["why"] for row in facts_of("out")["missing"]}["step-times.json"]
    shown = repr(value["a"] if isinstance(value, dict) else value)
    assert "holds no times of steps" in reason
    assert shown in reason


def test_neither_torch_nor_matplotlib_is_needed(folder: Path) -> None:
    script = (
        "import sys; sys.modules.update(torch=None, matplotlib=None); from bitplan.cli import main; "
        "sys.argv = ['optimize', 'report', 'out', '-q']; main()"
    )
    child = subprocess.run([sys.executable, "-P", "-c", script], check=False, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert (folder / "out" / "report.html").exists()


LEFT_OUT = {
    "result.json": ({"measured", "recovery"}, "nothing was carried out"),
    "network.json": (set(), "network.json"),
    "network.bitplan": (set(), "nothing was carried out"),
    "loss.arrow": ({"pairs"}, "optimize profile"),
    "frontier.arrow": ({"frontier"}, "optimize frontier out"),
    "device.arrow": (set(), "device.arrow"),
}


@pytest.mark.parametrize("damage", ["missing", "damaged"])
@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_a_file_is_needed_for_is_left_out_and_said_so(folder: Path, name: str, damage: str) -> None:
    file = folder / "out" / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b'{"status": "met"}')
    gone, reason = LEFT_OUT[name]
    facts = facts_of("out")
    assert [section for section in SECTIONS if section not in gone] == Page(page(facts)).sections
    said = {row["what"]: row["why"] for row in facts["missing"]}
    assert (reason if damage == "missing" else name) in said[name]


def test_remedies_are_commands_that_work_on_this_folder(folder: Path) -> None:
    (folder / "out").rename(folder / "my out")
    for name in ("network.bitplan", "frontier.arrow"):
        (folder / "my out" / name).unlink()
    said = {row["what"]: row["why"] for row in facts_of("my out")["missing"]}
    assert "`optimize realise 'my out/policy.json' -o 'my out'`" in said["network.bitplan"]
    assert "`optimize frontier 'my out'`" in said["frontier.arrow"]
    for name in ("loss.arrow", "device.arrow"):
        (folder / "my out" / name).unlink()
    said = {row["what"]: row["why"] for row in facts_of("my out")["missing"]}
    assert (
        said["frontier.arrow"] == "there is no frontier.arrow; without device.arrow, loss.arrow it cannot be computed"
    )


def test_a_policy_alone_is_reported_as_planned(command: Command, folder: Path) -> None:
    for file in (folder / "out").iterdir():
        if file.name != "policy.json":
            file.unlink()
    called = command("report", "out", "--json")
    assert called.code == 0, called.err
    assert called.json["status"] == "planned"
    assert {target["basis"] for target in called.json["targets"]} == {"predicted"}
    assert "Both targets are predicted to be met" in (folder / "out" / "report.html").read_text()
    assert Page((folder / "out" / "report.html").read_text("utf-8")).sections == [
        "targets",
        "layers",
        "solver",
        "provenance",
        "missing",
    ]


def test_what_was_measured_of_another_policy_is_not_shown(folder: Path) -> None:
    (folder / "other" / "policy.json").replace(folder / "out" / "policy.json")
    facts = facts_of("out")
    said = {row["what"]: row["why"] for row in facts["missing"]}
    assert "of another policy" in said["result.json"]
    assert "does not carry out" in said["network.bitplan"]
    assert facts["status"] == "planned"
    assert facts["networks"] == []
    assert facts["frontier"]["chosen"] != "p00"


def test_targets_are_those_that_the_result_was_judged_by(folder: Path) -> None:
    result = json.loads((folder / "out" / "result.json").read_text())
    result["targets"] |= {"latency_ms": 2.5, "bytes": None, "max_drop": 0.01, "objective": "bytes"}
    (folder / "out" / "result.json").write_text(json.dumps(result))
    facts = facts_of("out")
    assert {target["name"]: (target["limit"], target["met"]) for target in facts["targets"]} == {
        "latency": (2.5, True), "drop": (0.01, False),
    }  # fmt: skip
    assert "the size of the file was made as small as possible" in page(facts)


def test_the_machine_is_the_one_that_was_planned_for(folder: Path) -> None:
    policy = json.loads((folder / "out" / "policy.json").read_text())
    policy["hashes"]["device"] = "0123456789abcdef"
    (folder / "out" / "policy.json").write_text(json.dumps(policy))
    facts = facts_of("out")
    assert facts["provenance"]["machine"] is None
    assert "another machine" in {row["what"]: row["why"] for row in facts["missing"]}["device.arrow"]


def test_a_missed_target_stands_at_the_top(folder: Path) -> None:
    result = json.loads((folder / "out" / "result.json").read_text())
    result["status"], result["misses"] = "missed", ["latency 9.000 ms > 1.000 ms"]
    result["measured_latency_ms"]["median"] = 9.0
    (folder / "out" / "result.json").write_text(json.dumps(result))
    facts = facts_of("out")
    assert [target["met"] for target in facts["targets"]] == [False, True]
    text = page(facts)
    assert "<h1>1 of 2 targets missed</h1>" in text
    assert "latency 9.000 ms &gt; 1.000 ms" in text


def test_names_of_layers_are_text(folder: Path) -> None:
    text = page(facts_of("out"))
    assert text.count("</script>") == 2
    assert "layer <b>" not in text
    assert "layer &lt;b&gt;&amp;amp; &lt;/script&gt;" in text


def test_folders_without_a_result_are_refused(command: Command, folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "file").write_text("")
    for arguments, word in (
        (("empty",), "there is no policy.json"),
        (("nowhere",), "is not a folder"),
        (("file",), "is not a folder"),
        (("out", "--compare", "empty"), "empty holds no result"),
        (("out", "-o", "empty"), "is a folder"),
    ):
        called = command("report", *arguments)
        assert (called.code, called.out) == (2, ""), arguments
        assert word in called.err
    kept = (folder / "out" / "policy.json").read_bytes()
    called = command("report", "out", "-o", "out/policy.json")
    assert (called.code, "must end in .html" in called.err) == (2, True)
    assert (folder / "out" / "policy.json").read_bytes() == kept
    (folder / "other" / "LOAD.md").write_text("how a hybrid result is loaded")
    (folder / "other" / "frontier.arrow").unlink()
    called = command("report", "other", "--time")
    assert called.code == 2
    assert "--hybrid" in called.err
    assert "--hybrid" in {row["what"]: row["why"] for row in facts_of("other")["missing"]}["frontier.arrow"]
    (folder / "out" / "network.bitplan").unlink()
    called = command("report", "out", "--time")
    assert called.code == 2
    assert "--time needs the artifact" in called.err
    (folder / "out" / "policy.json").write_text("{")
    assert command("report", "out").code == 1
    assert not (folder / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("value", "style", "text"),
    [
        (0.0006789, "ms", "0.000679 ms"),
        (0.9999, "number", "1.00"),
        (1.59e-14, "number", "1.59e-14"),
        (12345.6, "number", "12,346"),
        (0, "number", "0"),
        (-0.0123, "change", "-1.2 %"),
        (None, "size", NOTHING),
    ],
)
def test_figures_are_written_for_people(value: float | None, style: str, text: str) -> None:
    assert written(value, style) == text


STAGES = {
    "planned": {"file_bytes": 2000, "latency_ms": 0.5, "loss": 0.2, "agreement": None, "accuracy": None},
    "recovered": {"file_bytes": 2000, "latency_ms": 0.55, "loss": 0.3, "agreement": 0.9, "accuracy": 0.8},
    "finetuned": {"file_bytes": 2000, "latency_ms": 0.56, "loss": 0.1, "agreement": 0.95, "accuracy": 0.85},
}
REPLANNED = {"file_bytes": 1990, "latency_ms": 0.51, "loss": 0.05, "agreement": 0.96, "accuracy": 0.86}


@pytest.mark.parametrize(
    ("told", "names"),
    [
        ({"finetuning": {**STAGES, "training": {"epochs": 2}}}, list(STAGES)),
        ({"replanning": {"kept": False, "stages": {**STAGES, "replanned": REPLANNED}}}, [*STAGES, "replanned"]),
    ],
)
def test_the_stages_of_a_trained_network_are_shown_in_their_order(
    folder: Path, told: dict[str, Any], names: list[str]
) -> None:
    file = folder / "out" / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | told))
    facts = facts_of("out")
    assert [stage["name"] for stage in facts["stages"]] == names
    assert facts["stages"][2]["accuracy"] == 0.85
    found = Page(page(facts))
    assert found.sections == [*SECTIONS[:6], "stages", *SECTIONS[6:]]
    figures = {path: json.loads(value) for path, value, _ in found.figures if path.startswith("stages.")}
    assert len(figures) == 5 * len(names) - 2  # all that are known
    assert figures["stages.1.loss"] == 0.3


@pytest.mark.parametrize("stages", [{"finetuned": {"loss": "low"}}, {"finetuned": {}}, []])
def test_stages_that_are_none_leave_the_result_out(folder: Path, stages: Any) -> None:
    file = folder / "out" / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"finetuning": stages}))
    assert "is not a result" in {row["what"]: row["why"] for row in facts_of("out")["missing"]}["result.json"]
