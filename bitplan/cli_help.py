"""Help that fits a screen: usage, text, the options that most need, commands, and the next step, a line each.

`--help-all` shows typer's own, with every option. Give `cls=BriefCommand` to a command, `BriefGroup` to a group.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import typer.core

EVERYTHING = "bitplan.help_all"
"""The key in a context's `meta` under which --help-all asks for every option."""
UNSAID = ("help", "help_all", "install_completion", "show_completion")
"""Parameters that the last line stands for, or that are asked for once."""


class _Brief:
    """In front of a command of typer's; `shown` names the parameters of its help, in order, where others that are not
    hidden stay out of it."""

    shown: ClassVar[tuple[str, ...]] = ()

    def format_help(self: Any, context: Any, formatter: Any) -> None:
        if context.meta.get(EVERYTHING):
            super().format_help(context, formatter)  # type: ignore[misc]
            return
        formatter.width += 2  # click leaves two columns free
        pieces = [piece for piece in self.collect_usage_pieces(context) if piece != "[OPTIONS]"]
        formatter.write_usage(context.command_path, " ".join(["[OPTIONS]", *pieces]), prefix="Usage: ")
        for paragraph in inspect.cleandoc(self.help or "").split("\n\n"):
            formatter.write_text(paragraph)
        if parameters := self._parameters(context):
            formatter.write("\n")
            formatter.write_dl(parameters)
        commands = getattr(self, "commands", {})
        if commands:
            formatter.write_dl(
                [
                    (name, one.get_short_help_str(formatter.width - 12))
                    for name, one in commands.items()
                    if not one.hidden
                ]
            )
        more = any(one.name == "help_all" for one in self.get_params(context))
        last = self.epilog or (f"All options: {context.command_path} --help-all" if more else "")
        if last:
            if not commands:  # their list is long
                formatter.write("\n")
            formatter.write_text(last)

    def _parameters(self: Any, context: Any) -> list[tuple[str, str]]:
        """Names and texts, without types: the texts have examples."""
        found = {one.name: one for one in self.get_params(context)}
        wanted = self.shown or [name for name, one in found.items() if name not in UNSAID and not one.hidden]
        return [(_names(found[name]), found[name].help or "") for name in wanted]


def _names(parameter: Any) -> str:
    """An option's short name and its first long one; an argument's name as usage shows it."""
    names = sorted(parameter.opts, key=lambda name: name.startswith("--"))
    if not names[0].startswith("-"):
        return str(parameter.name).upper()
    return ", ".join([*(name for name in names if not name.startswith("--")), next(n for n in names if n[:2] == "--")])


def brief(kind: type[Any], *shown: str) -> type[Any]:
    """BriefCommand or BriefGroup with these parameters in its help, in this order."""
    return type(kind.__name__, (kind,), {"shown": shown})


class BriefCommand(_Brief, typer.core.TyperCommand):
    """A command with brief help."""


class BriefGroup(_Brief, typer.core.TyperGroup):
    """A group of commands with brief help."""
