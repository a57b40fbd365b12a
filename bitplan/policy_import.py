"""`optimize policy import`: another tool's bits per layer become a policy file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bitplan.config import Config
from bitplan.errors import UsageError
from bitplan.network import Network
from bitplan.network_file import read_network
from bitplan.policies.assignments import read_assignments, said_of_unknown
from bitplan.policies.policy import LayerPolicy, Policy
from bitplan.policies.policy_file import validate_against, write_policy
from bitplan.policies.variants import check_variant
from bitplan.progress import Reporter
from bitplan.trained import load_trained
from bitplan.variant import Variant
from bitplan.workflow import NETWORK


def import_policy(
    file: Path,
    source: str,
    output: Path,
    network_file: Path | None,
    rest: str | None,
    config: Config,
    reporter: Reporter,
) -> dict[str, Any]:
    """Writes the policy of a file of `source` (see `read_assignments`) for the network in `network_file` (a network.json or
    the folder that has one), else of the configured model. Returns what was said, for machines.
    Raises FileFormatError and UsageError for what does not fit."""
    network = _network(network_file, config, reporter)
    layers = [node.name for node in network.layers]
    grouped = [node.name for node in network.layers if network.weight_shape(node).groups > 1]
    found = read_assignments(file, source, layers, _variant(rest), grouped)
    policy = Policy(
        tuple(LayerPolicy(name, variant, 0) for name, variant in found.variants.items()),
        hashes={"network": network.content_hash},
        settings={"imported_from": source},
    )
    policy = validate_against(policy, network)
    write_policy(output, policy)
    reporter.show(_table(found.variants))
    for note in found.notes:
        reporter.say(f"[yellow]{escape(note)}[/]")
    if found.unknown:
        reporter.say(f"[yellow]{escape(said_of_unknown(found.unknown, layers))}[/]")
    reporter.say(f"the policy is {output}; carry it out with: optimize realise {output} (and --model, --data)")
    return {
        "policy": str(output),
        "layers": {name: str(variant) for name, variant in found.variants.items()},
        "notes": list(found.notes),
        "unknown": list(found.unknown),
    }


def _network(path: Path | None, config: Config, reporter: Reporter) -> Network:
    if path is None:
        return load_trained(config, reporter).network
    return read_network(path / NETWORK if path.is_dir() else path)


def _variant(rest: str | None) -> Variant | None:
    if rest is None:
        return None
    try:
        return check_variant(Variant.parse(rest))
    except ValueError as error:
        raise UsageError(f"--rest: {error}") from None


def _table(variants: Mapping[str, Variant]) -> Table:
    table = Table("layer", "variant")
    for name, variant in variants.items():
        table.add_row(name, str(variant))
    return table
