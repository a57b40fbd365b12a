"""Makes docs/benchmarks.md from benchmarks/results; the tables are described in documented.py.

python benchmarks/tables.py            # writes the page
python benchmarks/tables.py --check    # exit code 1 where it is not what would be written
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from documented import MACHINES, PEERS, RESULTS, TABLES, Shown, peers_rows
from table import markdown

from bitplan.atomic_file import write_atomically

PAGE = RESULTS.parents[1] / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Made by `python benchmarks/tables.py` from the files under `benchmarks/results`; do not edit. Each table says by which command its
results were made, and on which machine. Networks and images other than the embedded example's are read from `BITPLAN_TEST_DATA`
(CONTRIBUTING.md). Accuracies are top-1 on test images; KL is to full precision.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *map(section, TABLES), peers_section()])


def section(shown: Shown) -> str:
    """One table under its title, with command, machine and files."""
    lines = ["| " + " | ".join(heading for heading, _ in shown.columns) + " |"]
    lines.append("|" + "---|" * len(shown.columns))
    lines += ["| " + " | ".join(cell(row) for _, cell in shown.columns) + " |" for row in shown.rows()]
    return (
        f"## {shown.title}\n\n{origin(shown.command or command_of(shown), shown.machine, shown.files, shown.note)}\n\n"
        + "\n".join(lines)
        + "\n"
    )


def peers_section() -> str:
    machine, files = PEERS
    note = (
        "Ratios ours / theirs by 10 % quantiles, by medians in brackets, lower is better unless the row says otherwise."
    )
    lines = origin("python benchmarks/against_peers.py", machine, files, note)
    return f"## Kernels against OpenVINO and ONNX Runtime\n\n{lines}\n\n{markdown(peers_rows())}\n"


def origin(command: str, machine: str, files: Sequence[str], note: str) -> str:
    """Where results come from."""
    names = ", ".join(f"`{machine}/{name}`" for name in files)
    return f"`{command}`; {MACHINES[machine]}; {names}." + (f" {note}" if note else "")


def command_of(shown: Shown) -> str:
    """The command that the first file names."""
    content: Any = json.loads((RESULTS / shown.machine / shown.files[0]).read_text())
    return str(content["command"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is not current")
    made, old = page(), PAGE.read_text() if PAGE.exists() else ""
    if not parser.parse_args().check:
        write_atomically(PAGE, made.encode())
    elif made != old:
        sys.exit(f"{PAGE} is not what benchmarks/results make: run python benchmarks/tables.py")


if __name__ == "__main__":
    main()
