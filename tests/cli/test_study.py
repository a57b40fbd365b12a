"""`optimize study` through the command, on a tiny network with a recorded device profile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitplan.config import load_config
from bitplan.policies.policy_file import policy_hash, read_policy

pytest.importorskip("optuna", reason="studies need optuna: pip install 'bitplan[study]'")

Command = Callable[..., Any]
SUBJECT = ("--model", "tiny_network:build", "--data", "data.npz", "--encodings", "int8,int4,binary,apb")
KNOBS = ("--knob", "encodings=menu,int8+int4", "--knob", "recovery=fast,none", "--knob", "kept=menu,0.01")


@pytest.fixture
def study(command: Command) -> Command:
    """Calls `optimize study` with random settings; both limits bind."""

    def call(*arguments: str) -> Any:
        limits = ("--budget", "2kB", "--recovery", "fast", "--sampler", "random")
        return command("study", *SUBJECT, *limits, *arguments)

    return call


def test_a_study_is_run_shown_exported_and_carried_out(study: Command, command: Command, folder: Path) -> None:
    called = study(*KNOBS, "--trials", "4", "--json")
    assert called.code == 0, called.err
    found = called.json
    assert found["trials"]["complete"] + found["trials"]["pruned"] == 4
    assert found["best"]["values"]["loss"] <= found["planner"]["values"]["loss"]
    assert found["best"]["bytes"] <= 2000
    assert found["beats_planner"] == (found["best"]["number"] != 0)
    assert found["planner"]["settings"] == {"encodings": "menu", "recovery": "fast", "kept": "menu"}
    place = "bitplan-out/study"

    shown = json.loads(command("study", "show", place, "--json").out)
    assert [row["number"] for row in shown] == list(range(4))
    assert command("study", "show", place).code == 0
    best = command("study", "best", place, "-o", "best.json")
    assert best.code == 0, best.err
    number = found["best"]["number"]
    kept = read_policy(folder / place / "trials" / f"{number:04d}" / "policy.json")
    assert policy_hash(read_policy(folder / "best.json")) == policy_hash(kept)
    for ending in ("csv", "json", "arrow"):
        exported = command("study", "export", place, "-o", f"trials.{ending}", "--json")
        assert exported.json == {"trials": 4, "output": f"trials.{ending}"}, exported.err
        assert (folder / f"trials.{ending}").stat().st_size
    assert command("study", "export", place, "-o", "trials.xlsx").code == 2

    again = study(*KNOBS, "--trials", "4", "--json")
    assert again.json == found
    other = study("--knob", "recovery=fast,none", "--trials", "4")
    assert (other.code, "other knobs" in " ".join(other.err.split())) == (2, True)

    (folder / "optimize.yaml").write_text("recovery: [strong]\nbudget: 9kB\n")  # of something else
    realised = command("realise", f"{place}#{number}", "-o", "r", "--json")
    assert realised.code in (0, 4), realised.err
    assert realised.json["file_bytes"] == found["best"]["bytes"]
    carried_out = load_config(folder / "r" / "optimize.yaml")
    assert (list(carried_out["recovery"]), carried_out["budget"]) == ([found["best"]["settings"]["recovery"]], "2kB")
    for name in ("realise", "run", "bench", "report"):
        assert command(name, f"{place}#99").code == 2
    trial = f"{place}#{number}"
    early = command("bench", trial)
    assert (early.code, f"optimize realise '{trial}'" in early.err) == (2, True), early.err
    planned = command("report", trial, "-o", "early.html", "--json").json
    assert planned["status"] == "planned"
    why = {row["what"]: row["why"] for row in planned["missing"]}
    assert f"`optimize realise '{trial}'` does" in why["result.json"]
    assert command("realise", trial, "--quiet").code in (0, 4)
    assert command("bench", trial, "--runs", "20", "--json").json["runs"] >= 20
    assert command("report", trial, "-o", "late.html", "--json").json["status"] in ("met", "missed")
    ran = command("run", trial, "--data", "data.npz", "--json")
    assert (ran.code, ran.json["images"], "carrying" in ran.err) == (0, 64, False), ran.err
    run = command("run", f"{place}/trials/{number:04d}/policy.json", "--data", "data.npz")
    assert (run.code, "no network.bitplan is beside it" in " ".join(run.err.split())) == (0, True), run.err

    (folder / place).rename(folder / "moved")
    assert json.loads(command("study", "show", "moved", "--json").out) == shown
    (folder / "moved" / "study.db").unlink()
    for name in ("show", "best", "export"):
        called = command("study", name, "moved")
        assert (called.code, "moved/study.db does not exist" in " ".join(called.err.split())) == (1, True), called.err
    assert not (folder / place).exists() and not (folder / "moved" / "study.db").exists()


def test_several_objectives_give_a_front_within_the_limits(study: Command, command: Command) -> None:
    called = study(
        "--objective", "loss", "--objective", "bytes", "--knob", "recovery=fast,none", "--trials", "4", "--json",
        "--storage", "journal:front.kept", "--jobs", "2",
    )  # fmt: skip
    assert called.code == 0, called.err
    front = called.json["front"]
    assert called.json["trials"]["complete"] + called.json["trials"]["pruned"] == 4  # pruned: no policy is that small
    assert all(0.5 <= row["settings"]["budget"] <= 1 and row["bytes"] <= 2000 for row in front)
    sizes = [row["bytes"] for row in front]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)
    assert json.loads(command("study", "best", "--json").out) == front
    assert command("study", "export").code == 0


def test_recovery_calibration_training_and_groups_are_knobs(study: Command) -> None:
    called = study(
        "--trials", "3", "--json", "--storage", "study.log", "--budget", "5kB",
        "--knob", "calibration_size=8..24:8", "--knob", "group:conv*=menu,int8", "--knob", "activations=menu,u8+u4",
        "--knob", "finetune=0,1", "--knob", "finetune.learning_rate=0.001..0.01:log", "--knob", "tune_epochs=1,2",
    )  # fmt: skip
    assert called.code == 0, called.err
    assert called.json["trials"]["complete"] == 3, called.err


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--knob", "recovry=fast,none"], 2, "did you mean 'recovery'"),
        (["--knob", "recovery=fats,none"], 2, "fats"),
        (["--knob", "encodings=int9"], 2, "int9"),
        (["--knob", "kept=2"], 2, "kept"),
        (["--knob", "estimator=clad"], 2, "did you mean 'clado'"),
        (["--knob", "calibration_size=many"], 2, "many"),
        (["--knob", "recovery=a..b"], 2, "recovery"),
        (["--knob", "group:none*=int8"], 2, "none*"),
        (["--knob", "finetune.rate=1"], 2, "rate"),
        (["--knob", "recovery"], 2, "must look like"),
        (["--sampler", "tpee"], 2, "did you mean 'tpe'"),
        (["--pruner", "mean"], 2, "mean"),
        (["--objective", "speed"], 2, "speed"),
        (["--objective", "bytes"], 2, "--max-loss"),
        (["--objective", "loss", "--objective", "bytes", "--pruner", "median"], 2, "one objective"),
        (["--storage", "study.txt"], 2, "study.txt"),
        (["--time-limit", "soon"], 2, "'soon' (str); it must be a time with its unit, such as 90s, 30min or 2h"),
        (["--name", "a/b"], 2, "a/b"),
        (["--max-drop", "1%"], 2, "--max-drop"),
        (["--hybrid"], 2, "--hybrid"),
        (["--polish", "9"], 2, "--polish"),
        (["--budget", "10"], 3, "file size"),
        (["--device", "none.arrow"], 1, "none.arrow"),
    ],
)
def test_wrong_options(study: Command, arguments: list[str], code: int, complaint: str) -> None:
    called = study(*arguments)
    assert called.code == code, called.err
    assert complaint in " ".join(called.err.split())
    assert "Traceback" not in called.err


@pytest.mark.parametrize(
    ("arguments", "before"),
    [
        (("--sampler", "tpee"), "loading"),
        (("--sampler", "no_such_module:make"), "loading"),
        (("--pruner", "mean"), "loading"),
        (("--sampler", "grid", "--knob", "calibration_size=5..20"), "timing"),
    ],
)
def test_a_wrong_sampler_or_pruner_is_found_before_anything_long(
    study: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], before: str
) -> None:
    monkeypatch.setenv("BITPLAN_CACHE", str(tmp_path / "cache"))  # where kernels were not timed yet
    called = study(*arguments)
    assert (called.code, before in called.err) == (2, False), called.err


def test_a_folder_without_a_study_says_how_to_make_one(command: Command) -> None:
    for name in ("show", "best", "export"):
        called = command("study", name, "nowhere")
        assert (called.code, "optimize study" in called.err) == (2, True)


def test_a_study_over_a_limit_on_the_measured_loss_looks_for_the_smallest(study: Command) -> None:
    called = study(
        "--objective", "bytes", "--max-loss", "0.5", "--knob", "budget=0.4..1", "--trials", "3", "--json",
        "--link-policies", "0", "--storage", "study.log",
    )  # fmt: skip
    assert called.code == 0, called.err
    best = called.json["best"]
    assert best is None or best["loss"] <= 0.5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves closing its files to Python
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_optuna_dashboard_opens_the_page_of_a_study(study: Command, folder: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed: bitplan[test]")
    called = study("--knob", "recovery=fast,none", "--trials", "2", "--json")
    assert called.code == 0, called.err
    import optuna

    page = dashboard.wsgi(optuna.storages.RDBStorage(called.json["storage"]))

    def get(path: str) -> tuple[str, bytes]:
        answers: list[str] = []
        environment = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SERVER_NAME": "x", "SERVER_PORT": "1"}
        environment |= {"wsgi.url_scheme": "http", "QUERY_STRING": ""}
        parts = page(environment, lambda status, headers, error=None: answers.append(status))
        return answers[0], b"".join(parts)

    assert get("/dashboard")[0] == "200 OK"
    status, text = get("/api/studies")
    assert status == "200 OK"
    summary = json.loads(text)["study_summaries"][0]
    assert summary["study_name"] == "study"
    status, text = get(f"/api/studies/{summary['study_id']}")
    assert status == "200 OK"
    assert len(json.loads(text)["trials"]) == 2
