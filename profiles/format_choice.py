"""Which choices of layers decide in which formats a value is kept.

`bitplan.formats.derive_formats` says which formats follow from a whole policy. This is its inverse, value by value:
what has to hold of the layers' activation formats for a value to be kept in given formats. Every reader of the value
has its say: a layer by its own activation format; an operation without weights by whether all who read its value in
turn read it in u8, a question that runs on until it meets layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations

from bitplan.formats import in_order, residual_format
from bitplan.network import Network, Node, Softmax
from bitplan.variant import F32, FORMATS, U8

Domains = Mapping[str, frozenset[str]]
"""The activation formats that layers may choose, by layer; those not named may choose any."""
Demand = Sequence[Domains]
"""One of these has to hold."""
Demands = Sequence[Demand]
"""All of these have to hold."""

NEVER: Demand = ()
ALWAYS: Demand = ({},)
ANY = frozenset(FORMATS)


@dataclass(frozen=True)
class Reader:
    """`wants[format]`: when it reads the value in that format; `within(formats)`: when it reads it in these alone.
    Formats that it never reads are absent from `wants`."""

    wants: Mapping[str, Demand]
    layer: str = ""
    """Of a layer: its name, and what it reads under each of its activation formats."""
    reads: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def within(self, formats: frozenset[str]) -> Demand:
        if self.layer:
            fitting = frozenset(form for form, read in self.reads.items() if read <= formats)
            return ({self.layer: fitting},) if fitting else NEVER
        wanted = [demand for form, demand in self.wants.items() if form in formats]
        return ALWAYS if len(wanted) == len(self.wants) else tuple(chain.from_iterable(wanted))


@dataclass(frozen=True)
class FormatChoice:
    """The readers of one value, and what they have to choose for it to be kept in certain formats."""

    readers: tuple[Reader, ...]

    def some_reads(self, *formats: str) -> Demand:
        """When a reader reads one of these formats."""
        return tuple(chain.from_iterable(reader.wants.get(form, NEVER) for reader in self.readers for form in formats))

    def read_as(self, formats: frozenset[str]) -> Demands:
        """When these formats are what its readers read, all together."""
        return [*(reader.within(formats) for reader in self.readers), *(self.some_reads(form) for form in formats)]

    def reachable(self, domains: Domains) -> Iterator[tuple[frozenset[str], Demands]]:
        """The sets of formats that its readers can read together, and what each takes."""
        known = [form for form in FORMATS if possible([self.some_reads(form)], domains)]
        for chosen in chain.from_iterable(combinations(known, size) for size in range(1, len(known) + 1)):
            demands = self.read_as(frozenset(chosen))
            if possible(demands, domains):
                yield frozenset(chosen), demands


def format_choices(network: Network) -> dict[str, FormatChoice]:
    """The readers of every value; one that nothing reads, like an output, is read in f32."""
    choices: dict[str, FormatChoice] = {}
    for node in reversed(network.nodes):
        readers = [_reader(reader, node, network, choices) for reader in network.readers[node.name]]
        if node.name in network.outputs or not readers:
            readers.append(Reader({F32: ALWAYS}))
        choices[node.name] = FormatChoice(tuple(readers))
    return choices


def satisfied(demands: Demands, domains: Domains) -> Iterator[Domains]:
    """Ways to meet all demands: domains within the given ones of which every choice meets them."""
    open_demands = [demand for demand in demands if not any(_holds(way, domains) for way in demand)]
    if not open_demands:
        yield domains
        return
    # the demand that leaves least choice goes first; one that leaves none is noticed before anything is tried
    fitting = [[way for way in demand if _fits(way, domains)] for demand in open_demands]
    first = min(range(len(fitting)), key=lambda number: len(fitting[number]))
    rest = fitting[:first] + fitting[first + 1 :]
    for way in fitting[first]:
        yield from satisfied(rest, narrowed(domains, way))


def possible(demands: Demands, domains: Domains) -> bool:
    return next(satisfied(demands, domains), None) is not None


def narrowed(domains: Domains, way: Domains) -> dict[str, frozenset[str]]:
    """What is left of domains if a way is taken."""
    return {**domains, **{layer: domains.get(layer, ANY) & formats for layer, formats in way.items()}}


def _fits(way: Domains, domains: Domains) -> bool:
    return all(domains.get(layer, ANY) & formats for layer, formats in way.items())


def _holds(way: Domains, domains: Domains) -> bool:
    return all(domains.get(layer, ANY) <= formats for layer, formats in way.items())


def _reader(reader: Node, value: Node, network: Network, choices: Mapping[str, FormatChoice]) -> Reader:
    if reader in network.layers:
        return _layer_reader(reader, value)
    if isinstance(reader.op, Softmax):
        return Reader({F32: ALWAYS})
    # such a node reads u8 if all who read its value do, each of whom can say that in one way at most
    narrow = next(satisfied([other.within(frozenset([U8])) for other in choices[reader.name].readers], {}), None)
    if narrow is None:
        return Reader({F32: ALWAYS})
    return Reader({U8: (narrow,), F32: tuple({layer: ANY - formats} for layer, formats in sorted(narrow.items()))})


def _layer_reader(layer: Node, value: Node) -> Reader:
    reads = {}
    for form in FORMATS:
        read_by_place = [form, *(residual_format(form) for _ in layer.inputs[1:])]
        reads[form] = frozenset(
            read for name, read in zip(layer.inputs, read_by_place, strict=True) if name == value.name
        )
    wants = {
        form: ({layer.name: frozenset(own for own, read in reads.items() if form in read)},)
        for form in in_order(frozenset(chain.from_iterable(reads.values())))
    }
    return Reader(wants, layer.name, reads)
