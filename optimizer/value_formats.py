"""Which decisions settle in which formats a value is kept (the rule is that of bitplan/formats.py).

Each reader of a value reads it in one format or two, and the value is kept in the union of these. Where one group alone
decides them all, the value's formats are a function of that group's option. Where several do, the value gets a group
of its own, tied to its readers by forbidden pairs. A union of many readers is no pairwise condition, so each option
says for every format which reader is the first that wants it. Given the readers, exactly one option is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bitplan.formats import in_order, kept_formats, residual_format
from bitplan.network import Network, Node, Softmax
from bitplan.optimizer.builder import ProblemBuilder
from bitplan.variant import F32, U8, Variant

Kept = frozenset[str]
ONLY_F32, ONLY_U8, UNREAD = frozenset([F32]), frozenset([U8]), frozenset[str]()

FirstReaders = Mapping[str, int]
"""By format: the number of the first reader that wants it; a format that none wants is absent."""


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
    options: tuple[FirstReaders, ...]

    def option(self, choices: Sequence[int]) -> int:
        """The one option that is allowed beside the readers' choices."""
        wanted = [r.formats[0 if r.group is None else choices[r.group]] for r in self.readers]
        first: dict[str, int] = {}
        for number, formats in enumerate(wanted):
            first = _with_reader(first, number, formats)
        return self.options.index(first)


@dataclass
class ValueFormats:
    """`kept[value]`: how its formats are decided; `groups`: the groups added, in the order in which they depend on
    each other."""

    kept: dict[str, Decided] = field(default_factory=dict)
    groups: list[ValueGroup] = field(default_factory=list)


def add_value_formats(
    builder: ProblemBuilder, network: Network, menu: Mapping[str, Sequence[Variant]], layer_groups: Mapping[str, int]
) -> ValueFormats:
    """Adds the groups and forbidden pairs of all values; layers must have their groups already."""
    found = ValueFormats()
    for node in reversed(network.nodes):
        readers = [
            _layer_reads(reader, node, menu[reader.name], layer_groups[reader.name])
            if reader.name in layer_groups
            else _operation_reads(reader, found.kept[reader.name])
            for reader in network.readers[node.name]
        ]
        if node.name in network.outputs or not readers:
            readers.append(Decided(None, (ONLY_F32,)))
        read = _union(builder, node, readers, found)
        found.kept[node.name] = _simplest(read.group, [kept_formats(node, formats) for formats in read.formats])
    return found


def _layer_reads(layer: Node, value: Node, menu: Sequence[Variant], group: int) -> Decided:
    """A layer reads its input in its variant's activation format; it may read the same value as residual too."""
    formats = []
    for variant in menu:
        by_place = [variant.activation, *(residual_format(variant.activation) for _ in layer.inputs[1:])]
        formats.append(frozenset(form for name, form in zip(layer.inputs, by_place, strict=True) if name == value.name))
    return _simplest(group, formats)


def _operation_reads(node: Node, kept: Decided) -> Decided:
    """A node without weights reads u8 if its own value is kept in that alone, else f32; softmax always reads f32."""
    wide = isinstance(node.op, Softmax)
    return _simplest(kept.group, [ONLY_U8 if f == ONLY_U8 and not wide else ONLY_F32 for f in kept.formats])


def _union(builder: ProblemBuilder, node: Node, readers: Sequence[Decided], found: ValueFormats) -> Decided:
    """The formats in which any of the readers reads the value of a node."""
    merged = _merged(readers)
    constant = UNREAD.union(*(reader.formats[0] for reader in merged if reader.group is None))
    deciding = [reader for reader in merged if not all(formats <= constant for formats in reader.formats)]
    if not deciding:
        return Decided(None, (constant,))
    if len(deciding) == 1:
        return _simplest(deciding[0].group, [formats | constant for formats in deciding[0].formats])
    # the constant reader is number 0, so that whoever wants the same later changes nothing
    numbered = [*([Decided(None, (constant,))] if constant else []), *deciding]
    options = _options(numbered)
    group = builder.add_group(f"{node.name}: formats", [_label(option) for option in options])
    for number, reader in enumerate(numbered):
        if reader.group is not None:
            mask = [[not _agrees(formats, number, option) for option in options] for formats in reader.formats]
            builder.forbid(reader.group, group, np.array(mask))
    found.groups.append(ValueGroup(group, tuple(numbered), tuple(options)))
    return _simplest(group, [frozenset(option) for option in options])


def _merged(readers: Sequence[Decided]) -> list[Decided]:
    """Readers that the same group decides become one that wants the union of their formats."""
    by_group: dict[int | None, list[Kept]] = {}
    for reader in readers:
        earlier = by_group.get(reader.group)
        by_group[reader.group] = (
            list(reader.formats) if earlier is None else [a | b for a, b in zip(earlier, reader.formats, strict=True)]
        )
    return [_simplest(group, formats) for group, formats in by_group.items()]


def _options(readers: Sequence[Decided]) -> list[FirstReaders]:
    """The options that readers who choose independently can bring about."""
    options: list[FirstReaders] = [{}]
    for number, reader in enumerate(readers):
        wanted = dict.fromkeys(reader.formats)
        after = (_with_reader(option, number, formats) for option in options for formats in wanted)
        options = [dict(items) for items in dict.fromkeys(tuple(sorted(option.items())) for option in after)]
    return options


def _with_reader(first: FirstReaders, number: int, formats: Kept) -> dict[str, int]:
    return {**dict.fromkeys(formats, number), **first}


def _agrees(formats: Kept, number: int, option: FirstReaders) -> bool:
    """Whether the reader of this number may want these formats under an option of the value's group."""
    return formats <= option.keys() and all(
        form in formats if number == first else form not in formats for form, first in option.items() if number <= first
    )


def _label(option: FirstReaders) -> str:
    """The formats, each with its first reader where that is not number 0."""
    parts = (f"{form} from reader {option[form]}" if option[form] else form for form in in_order(frozenset(option)))
    return " + ".join(parts)


def _simplest(group: int | None, formats: Sequence[Kept]) -> Decided:
    """Formats that are the same under every option are constant."""
    if len(set(formats)) == 1:
        return Decided(None, (formats[0],))
    return Decided(group, tuple(formats))
