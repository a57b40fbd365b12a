"""The options that the commands share. Each is a key of `optimize.yaml`; together they make a Config."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from bitplan.cli_completion import device_profiles, encodings, one_of, some_of
from bitplan.cli_help import EVERYTHING
from bitplan.cli_reporter import ProgressForm, others_heard, reporter_for
from bitplan.config import COMMAND_LINE, DEFAULT, DEFAULT_FILE, Config, load_config, merge
from bitplan.errors import UsageError
from bitplan.profiles.estimators import ESTIMATORS
from bitplan.recovery_names import PRESETS, RANGES, STEPS
from bitplan.runs.recording import Asked, recorded

SUBJECT, TARGETS, CHOICES, HOW = "Network and data", "Targets", "Choices", "How"


def _option(kind: Any, panel: str, text: str, *names: str, complete: Callable[[str], list[str]] | None = None) -> Any:
    return Annotated[kind | None, typer.Option(*names, help=text, rich_help_panel=panel, autocompletion=complete)]


OPTIONS: dict[str, Any] = {
    "model": _option(str, SUBJECT, "pkg.mod:function, torchvision:resnet18, net.pt2 or net.onnx."),
    "weights": _option(Path, SUBJECT, "Trained weights: .safetensors, or .pt with tensors only."),
    "data": _option(str, SUBJECT, "file.npz, image folder, cifar10:DIR or pkg.mod:function."),
    "mean": _option(str, SUBJECT, "Subtracted from raw images, per channel: 123.7,116.3,103.5."),
    "std": _option(str, SUBJECT, "Divides them afterwards, per channel."),
    "resize": _option(int, SUBJECT, "Short side of image files, pixels."),
    "crop": _option(int, SUBJECT, "Centre crop of image files, pixels."),
    "calibration_size": _option(int, SUBJECT, "At most so many calibration images."),
    "loss_size": _option(int, SUBJECT, "Calibration images that losses are measured on."),
    "test_size": _option(int, SUBJECT, "At most so many test images."),
    "target_latency": _option(str, TARGETS, "Median of one inference, such as 20ms."),
    "budget": _option(str, TARGETS, "Size of the artifact's file, such as 2MB."),
    "memory": _option(str, TARGETS, "Packed weights and activations in memory."),
    "max_loss": _option(float, TARGETS, "Predicted loss increase."),
    "max_drop": _option(str, TARGETS, "Top-1 points lost on the test images, such as 1%."),
    "full_precision_weights": _option(str, TARGETS, "Weights kept out of binary codes or in float32: 2% or 5000."),
    "objective": _option(str, TARGETS, "What is minimised: loss, bytes, latency or memory."),
    "metric": _option(str, CHOICES, "pkg.mod:function(outputs, labels) in place of top-1."),
    "loss_metric": _option(str, CHOICES, "What the loss profile measures: kl, task, squared_error."),
    "encodings": _option(list[str], CHOICES, "The menu: encodings, variants or presets.", complete=some_of(encodings)),
    "pin": _option(list[str], CHOICES, "layer=encoding; the layer may be a pattern."),
    "exclude": _option(list[str], CHOICES, "Layer (or pattern) kept in float32."),
    "recovery": _option(
        list[str],
        CHOICES,
        f"{', '.join(PRESETS)}, or steps: {', '.join(STEPS)}.",
        complete=some_of(lambda: (*PRESETS, *STEPS)),
    ),
    "ranges": _option(
        str, CHOICES, f"How activation ranges are chosen: {', '.join(RANGES)}.", complete=one_of(lambda: RANGES)
    ),
    "tune_epochs": _option(int, CHOICES, "Epochs of the recovery step tune."),
    "compare": _option(list[str], CHOICES, "Uniform policies carried out beside ours: variants, fitting, none."),
    "hybrid": _option(
        bool, CHOICES, "Replace layers inside the torch module; the rest stays there.", "--hybrid/--no-hybrid"
    ),
    "threads": _option(int, HOW, "Threads of the runtime."),
    "batch": _option(int, HOW, "Images per inference."),
    "seed": _option(int, HOW, "Of the data split and the solver."),
    "time_limit": _option(float, HOW, "Seconds for the solver."),
    "finetune": _option(str, HOW, "Train the plan for so long, such as 30epochs."),
    "finetune_time": _option(str, HOW, "Ends training with the last epoch that fits, such as 60min."),
    "finetune_options": _option(
        list[str], HOW, "name=value, such as learning_rate=0.001; see docs/finetuning.md.", "--finetune-option"
    ),
    "train_data": _option(str, HOW, "Images to train on, as --data; by default the calibration images."),
    "loss": _option(str, HOW, "pkg.mod:function(outputs, full_precision, labels) in place of distillation."),
    "polish": _option(int, HOW, "Improve the plan by swaps that measuring confirms; so many policies are measured."),
    "rounds": _option(int, HOW, "Re-plans where a target was missed when measured."),
    "device_profile": _option(
        Path,
        HOW,
        "Device profile: file, or name (optimize profile list).",
        "--device",
        "--device-profile",
        complete=one_of(device_profiles),
    ),
    "margin": _option(float, HOW, "Error bars added to latencies that are estimates, in plans from stored profiles."),
    "loss_profile": _option(
        Path,
        HOW,
        "Arrow file of this network's losses, or how to measure them: " + ", ".join(ESTIMATORS) + ".",
        complete=one_of(lambda: ESTIMATORS),
    ),
    "link_policies": _option(int, HOW, "Random policies that predicted losses are calibrated on."),
    "jobs": _option(int, HOW, "Processes that losses are measured by; 0: one per core."),
    "backend": _option(str, HOW, "Whose processes: loky (this machine), ray or dask."),
    "cluster": _option(str, HOW, "Address of a running Ray or Dask cluster."),
    "output": _option(Path, HOW, "Folder of the results.", "-o", "--output"),
}
"""Every option by its key, in the order in which help shows them."""

SHOWN = (
    "model",
    "weights",
    "data",
    "target_latency",
    "budget",
    "encodings",
    "recovery",
    "finetune",
    "device_profile",
    "output",
)
"""What `--help` shows; `--help-all` shows the others too."""
for _name, _kind in OPTIONS.items():
    _kind.__metadata__[0].hidden = _name not in SHOWN


def _show_all(context: typer.Context, wanted: bool) -> None:
    if wanted:
        for parameter in context.command.params:
            parameter.hidden = False  # type: ignore[attr-defined]
        context.meta[EVERYTHING] = True
        typer.echo(context.get_help())
        raise typer.Exit


HelpAll = Annotated[
    bool, typer.Option("--help-all", help="Show every option and exit.", is_eager=True, callback=_show_all)
]

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="Configuration (optimize.yaml here, if present).", rich_help_panel=HOW, hidden=True),
]
Json = Annotated[bool, typer.Option("--json", help="End with one JSON object.", rich_help_panel=HOW)]
WithReport = Annotated[
    bool, typer.Option("--report", help="Write the report page too.", rich_help_panel=HOW, hidden=True)
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress on standard error.", rich_help_panel=HOW)]
Verbose = Annotated[
    bool,
    typer.Option(
        "-v",
        "--verbose",
        help="Also details, such as what torch says while it traces.",
        rich_help_panel=HOW,
        hidden=True,
    ),
]


Resolved = Callable[[dict[str, Any], Path | None, dict[str, Any]], Config]
"""The configuration of a command from the options, the path behind `--config`, and the command's own arguments."""
Place = Callable[[Config, Mapping[str, Any]], Path | None]
"""The folder that a command works in, from its configuration and its own arguments; None where there is none to keep a
record in."""


def configured(
    command: Callable[..., Any], resolved: Resolved | None = None, place: Place | None = None
) -> Callable[..., Any]:
    """Gives a command all of OPTIONS, `--config`, `--quiet`, `--verbose` and `--progress`; it is called with `config` and
    `reporter` in their place, the options over the configuration file over the defaults, or what `resolved` makes of them. A
    parameter of its own that is named like one of OPTIONS takes that one's place, and is not part of the configuration. A
    group that is given a sub-command does nothing of its own. What it says is kept in the run folder that `place` names."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for name, p in signature.parameters.items() if name not in ("config", "reporter")]
    names = {p.name for p in own}
    shared = [_keyword(name, kind, None) for name, kind in OPTIONS.items() if name not in names]
    extra = [
        _keyword("config_file", ConfigFile, None),
        _keyword("quiet", Quiet, False),
        _keyword("verbose", Verbose, False),
        _keyword("progress", ProgressForm, None),
        _keyword("help_all", HelpAll, False),
    ]

    @functools.wraps(command)
    def called(**given: Any) -> Any:
        context: typer.Context = given.pop("context")
        if context.invoked_subcommand is not None:  # its own options count, read behind its name
            _refuse_options_before(context)
            return None
        mine = {p.name: context if p.name == "context" else given.pop(p.name) for p in own}
        path = given.pop("config_file")
        del given["help_all"]
        how = {name: given.pop(name) for name in ("quiet", "progress", "verbose")}
        reporter = reporter_for(json_output=bool(mine.get("json_output")), **how)
        config = resolved(given, path, mine) if resolved else resolve(given, path)
        folder = place(config, mine) if place else None
        asked = Asked(_words(context), ["optimize", *sys.argv[1:]], _arguments(context, mine), config)
        with others_heard(reporter), recorded(folder, asked, reporter) if folder else nullcontext():
            return command(**mine, config=config, reporter=reporter)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own if p.name != "context"]
    parameters.insert(0, inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
    called.__signature__ = inspect.Signature([*parameters, *shared, *extra])  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in [*parameters, *shared, *extra]}
    return called


def given_by_user(context: typer.Context, name: str) -> bool:
    """Whether an option of the running command stood on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _words(context: typer.Context) -> str:
    """`optimize`, or the words behind it."""
    words: list[str] = []
    inner: Any = context
    while inner.parent is not None:
        words.insert(0, inner.info_name)
        inner = inner.parent
    return " ".join(words) or "optimize"


def _arguments(context: typer.Context, mine: Mapping[str, Any]) -> dict[str, Any]:
    """The command's own arguments, and where they come from."""
    return {
        name: {"value": value, "from": COMMAND_LINE if given_by_user(context, name) else DEFAULT}
        for name, value in mine.items()
        if name not in ("context", "json_output")
    }


def _refuse_options_before(context: typer.Context) -> None:
    for parameter in context.command.params:
        if parameter.name and given_by_user(context, parameter.name):
            raise UsageError(
                f"{parameter.opts[0]} stands before {context.invoked_subcommand}; options of `{context.command_path} "
                f"{context.invoked_subcommand}` go behind it"
            )


def resolve(options: dict[str, Any], path: Path | None) -> Config:
    """Options over the file over the defaults; without `--config`, optimize.yaml of the current folder if it exists."""
    path = existing(path) or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    return merge(options, load_config(path) if path else None, str(path))


def existing(path: Path | None) -> Path | None:
    """The file behind `--config`. Raises UsageError where one is named that is not there."""
    if path is not None and not path.exists():
        raise UsageError(f"the configuration {path} does not exist; name another with --config")
    return path


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
