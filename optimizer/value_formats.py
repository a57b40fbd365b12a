"""Which decisions settle in which formats a value is kept (the rule is that of bitplan/formats.py).

Each reader of a value reads it in one format, and the value is kept in the union of these. Where one group alone
decides them all, the value's formats are a function of that group's option. Where several do, the value gets a group
of its own, tied to its readers by forbidden pairs. A union of many readers is no pairwise condition, so each option
names who settled it: "f32", "u8", or "both" because reader number j is the first that wants the other format. Given the
readers, exactly one option is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bitplan.network import Network, Node, Softmax
from bitplan.optimizer.builder import ProblemBuilder
from bitplan.variant import F32, U8, Variant

Kept = frozenset[str]
ONLY_F32, ONLY_U8, BOTH, UNREAD = frozenset([F32]), frozenset([U8]), frozenset([F32, U8]), frozenset[str]()


@dataclass(frozen=True, slots=True)
class Decided:
    """Formats as a function of a group's option; of nothing (`group` None, one entry) where they are constant."""

    group: int | None
    formats: tuple[Kept, ...]


@dataclass(frozen=True, slots=True)
class ValueGroup:
    """A group that was added for a value: what its options stand for, and the readers that settle it."""

    group: int
    readers: tuple[Decided, ...]
    options: tuple[tuple[str, int], ...]
    """(format of the first readers, number of the first reader that wants another; len(readers): none does)."""

    def option(self, choices: Sequence[int]) -> int:
        """The one option that is allowed beside the readers' choices."""
        formats = [r.formats[0 if r.group is None else choices[r.group]] for r in self.readers]
        return next(
            number
            for number, option in enumerate(self.options)
            if all(_agrees(kept, reader, option) for reader, kept in enumerate(formats))
        )


@dataclass
class ValueFormats:
    """`kept[value]`: how its formats are decided; `groups`: the groups added, in the order in which they depend on
    each other; `read[node]`: how the format in which a node without weights reads its inputs is decided."""

    kept: dict[str, Decided] = field(default_factory=dict)
    groups: list[ValueGroup] = field(default_factory=list)
    read: dict[str, Decided] = field(default_factory=dict)


def add_value_formats(
    builder: ProblemBuilder, network: Network, menu: Mapping[str, Sequence[Variant]], layer_groups: Mapping[str, int]
) -> ValueFormats:
    """Adds the groups and forbidden pairs of all values; layers must have their groups already."""
    found = ValueFormats()
    for node in network.layers:
        formats = tuple(frozenset([variant.activation]) for variant in menu[node.name])
        found.read[node.name] = _simplest(Decided(layer_groups[node.name], formats))
    for node in reversed(network.nodes):
        readers = [found.read[reader.name] for reader in network.readers[node.name]]
        if node.name in network.outputs:
            readers.append(Decided(None, (ONLY_F32,)))
        kept = _kept(builder, node, readers, found)
        found.kept[node.name] = kept
        if node.inputs and node.name not in layer_groups:
            wide = isinstance(node.op, Softmax)
            formats = tuple(ONLY_U8 if f == ONLY_U8 and not wide else ONLY_F32 for f in kept.formats)
            found.read[node.name] = _simplest(Decided(kept.group, formats))
    return found


def _kept(builder: ProblemBuilder, node: Node, readers: Sequence[Decided], found: ValueFormats) -> Decided:
    if not readers:
        return Decided(None, (ONLY_F32,))
    merged = _merged(readers)
    deciding = [reader for reader in merged if reader.group is not None]
    constant = UNREAD.union(*(reader.formats[0] for reader in merged if reader.group is None))
    if len(deciding) <= 1 or constant == BOTH:
        only = deciding[0] if deciding and constant != BOTH else Decided(None, (UNREAD,))
        return _simplest(Decided(only.group, tuple(formats | constant for formats in only.formats)))
    options = [(form, first) for form in (F32, U8) for first in (len(merged), *range(len(merged)))]
    options = [option for option in options if _possible(merged, option)]
    labels = [form if first == len(merged) else f"both ({form} until reader {first})" for form, first in options]
    group = builder.add_group(f"{node.name}: formats", labels)
    for number, reader in enumerate(merged):
        if reader.group is not None:
            mask = [[not _agrees(formats, number, option) for option in options] for formats in reader.formats]
            builder.forbid(reader.group, group, np.array(mask))
    found.groups.append(ValueGroup(group, tuple(merged), tuple(options)))
    kept = tuple(frozenset([form]) if first == len(merged) else BOTH for form, first in options)
    return _simplest(Decided(group, kept))


def _merged(readers: Sequence[Decided]) -> list[Decided]:
    """Readers that the same group decides become one that wants the union of their formats."""
    by_group: dict[int | None, tuple[Kept, ...]] = {}
    for reader in readers:
        earlier = by_group.get(reader.group)
        by_group[reader.group] = (
            reader.formats if earlier is None else tuple(a | b for a, b in zip(earlier, reader.formats, strict=True))
        )
    return [_simplest(Decided(group, formats)) for group, formats in by_group.items()]


def _agrees(formats: Kept, number: int, option: tuple[str, int]) -> bool:
    """Whether the reader of this number may want these formats under an option of the value's group."""
    form, first = option
    if number < first:
        return formats == {form}
    # "both" is settled by the first reader that wants the other format, or both at once if it is reader 0
    return number > first or (formats != {form} and (first > 0 or (formats == BOTH and form == F32)))


def _possible(readers: Sequence[Decided], option: tuple[str, int]) -> bool:
    return all(any(_agrees(formats, n, option) for formats in reader.formats) for n, reader in enumerate(readers))


def _simplest(decided: Decided) -> Decided:
    """Formats that are the same under every option are constant."""
    if decided.group is not None and len(set(decided.formats)) == 1:
        return Decided(None, decided.formats[:1])
    return decided
