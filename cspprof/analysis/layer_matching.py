"""Pairs of operations of two records that compute the same.

A network has other paths in another source: an ONNX graph, an exported program, code with new names. So operations with
other paths are paired by what they compute.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

from cspprof.analysis.layer_rows import LayerRow, kind_label
from cspprof.core.kinds import Kind

MAX_CANDIDATES = 1_000_000
"""Beyond this number of candidate pairs, equal operations are paired one by one, not by a longest common
subsequence."""

Key = Callable[[LayerRow], Hashable]
Gap = tuple[list[int], list[int]]
"""Positions of unpaired rows in the base and in the other record."""


def match_rows(
    rows: tuple[Sequence[LayerRow], Sequence[LayerRow]], values: tuple[Sequence[int | None], Sequence[int | None]]
) -> list[tuple[int | None, int | None]]:
    """The positions of the rows of the base and of another record in pairs; None for a row of one record only.

    `values` are the values of the rows in a metric, None if unknown. Rows with the value 0 are left out.
    Pairs are, in this order:

    1. the same path and the same computation;
    2. the same computation under any path, if one record then contains all computations of the other one;
    3. the same path and the same kind of operation: this layer changed;
    4. between the same two pairs: the same computation, then the same path;
    5. between the same two pairs: in order, if the kinds of operations are the same.

    If the rows between two pairs add up to the same value in both records, they are left out too: an attention
    operation is two products in an ONNX graph.
    """
    matching = _matched(rows, values)
    return [*sorted(matching.pairs), *((i, None) for i in matching.left), *((None, j) for j in matching.right)]


class RowMatches(NamedTuple):
    """All rows of a base and of another record by position, each in exactly one place."""

    matched: Sequence[Gap]
    """Rows of the base and the rows of the other record that match them: usually one of each. Several rows match
    together if they add up to the same value, such as an attention operation and two products."""
    removed: Sequence[int]
    """Rows of the base without a counterpart."""
    added: Sequence[int]
    """Rows of the other record without a counterpart."""


def match_all_rows(
    rows: tuple[Sequence[LayerRow], Sequence[LayerRow]], values: tuple[Sequence[int | None], Sequence[int | None]]
) -> RowMatches:
    """Every row of both records, matched, removed or added.

    Rows with a value are matched as in `match_rows`. Rows with the value 0, such as activations and concatenations,
    follow them: between the same two pairs they match by their computation, anywhere by their path.
    """
    matching = _matched(rows, values)
    removed, added = [*matching.left], [*matching.right]
    matching.left = {i: None for i, value in enumerate(values[0]) if value == 0}
    matching.right = {j: None for j, value in enumerate(values[1]) if value == 0}
    if matching.pairs:
        for gap in matching.gaps():
            matching.align(gap)
    matching.pair_by(lambda row: (row.path, computation(row)))
    matching.pair_by(lambda row: (row.path, family(row.spec.kind)))
    pairs = [([i], [j]) for i, j in matching.pairs]
    return RowMatches(
        sorted([*pairs, *matching.left_out]), sorted([*removed, *matching.left]), sorted([*added, *matching.right])
    )


def _matched(
    rows: tuple[Sequence[LayerRow], Sequence[LayerRow]], values: tuple[Sequence[int | None], Sequence[int | None]]
) -> _Matching:
    """The rows with a value, matched by the rules of `match_rows`."""
    matching = _Matching(rows, values)
    matching.pair_by(lambda row: (row.path, computation(row)))
    if matching.one_contains_the_other():
        matching.align()
        matching.pair_by(computation)
    matching.pair_by(lambda row: (row.path, family(row.spec.kind)))
    for gap in matching.gaps():
        matching.align(gap)
    for gap in matching.gaps():
        matching.pair_by(lambda row: row.path, gap)
        base, other = matching.unpaired(gap)
        if _is_equal([values[0][i] for i in base], [values[1][j] for j in other]):
            matching.leave_out((base, other))
        elif [_label(rows[0][i]) for i in base] == [_label(rows[1][j]) for j in other]:
            matching.pair_by(_label, (base, other))
    return matching


def computation(row: LayerRow) -> tuple[Hashable, ...]:
    """The kind of operation, the numbers of elements of its first input and output, and its MACs.

    Shapes would differ where one source reshapes and another one has a batch dimension.
    """
    spec = row.spec
    sizes = [tensors[0].numel if tensors else 0 for tensors in (spec.reads, spec.writes)]
    return (family(spec.kind), *sizes, spec.macs)


def family(kind: Kind) -> Kind:
    """The kind. A linear layer counts as a matrix product, which it is in some graphs."""
    return Kind.MATMUL if kind is Kind.LINEAR else kind


def _is_equal(base: list[int | None], other: list[int | None]) -> bool:
    """Whether these values have the same sum, which is known."""
    known = ([v for v in base if v is not None], [v for v in other if v is not None])
    return sum(known[0]) == sum(known[1]) and len(base) + len(other) == len(known[0]) + len(known[1])


def _label(row: LayerRow) -> str:
    """The kind of operation with its kernel."""
    return "product" if family(row.spec.kind) is Kind.MATMUL else kind_label(row.spec)


class _Matching:
    """The pairs so far, and the rows that are not paired yet."""

    def __init__(
        self,
        rows: tuple[Sequence[LayerRow], Sequence[LayerRow]],
        values: tuple[Sequence[int | None], Sequence[int | None]],
    ) -> None:
        self.rows = rows
        self.left = {i: None for i, value in enumerate(values[0]) if value != 0}
        self.right = {j: None for j, value in enumerate(values[1]) if value != 0}
        self.pairs: list[tuple[int, int]] = []
        self.left_out: list[Gap] = []
        """Rows between two pairs that add up to the same value in both records."""

    def unpaired(self, gap: tuple[Iterable[int], Iterable[int]] | None = None) -> Gap:
        """The rows of the gap, by default of the records, that are not paired yet."""
        left, right = gap or (self.left, self.right)
        return [i for i in left if i in self.left], [j for j in right if j in self.right]

    def leave_out(self, gap: Gap) -> None:
        if any(gap):
            self.left_out.append(gap)
        for unpaired, positions in zip((self.left, self.right), gap, strict=True):
            for position in positions:
                del unpaired[position]

    def add(self, i: int, j: int) -> None:
        self.pairs.append((i, j))
        del self.left[i], self.right[j]

    def pair_by(self, key: Key, gap: Gap | None = None) -> None:
        """Pair the first row of each key with the first one in the other record, the second with the second, …"""
        left, right = self.unpaired(gap)
        waiting: dict[Hashable, deque[int]] = defaultdict(deque)
        for j in right:
            waiting[key(self.rows[1][j])].append(j)
        for i in left:
            queue = waiting.get(key(self.rows[0][i]))
            if queue:
                self.add(i, queue.popleft())

    def computations(self, gap: Gap | None = None) -> list[deque[tuple[int, Hashable]]]:
        """The unpaired rows of both records, each with its computation."""
        sides = zip(self.rows, self.unpaired(gap), strict=True)
        return [deque((i, computation(rows[i])) for i in unpaired) for rows, unpaired in sides]

    def one_contains_the_other(self) -> bool:
        left, right = (Counter(computed for _, computed in side) for side in self.computations())
        return left <= right or right <= left

    def align(self, gap: Gap | None = None) -> None:
        """Pair a longest common subsequence of computations. It begins and ends with the common ends."""
        left, right = self.computations(gap)
        while left and right and left[0][1] == right[0][1]:
            self.add(left.popleft()[0], right.popleft()[0])
        while left and right and left[-1][1] == right[-1][1]:
            self.add(left.pop()[0], right.pop()[0])
        count = Counter(computed for _, computed in right)
        if sum(count[computed] for _, computed in left) > MAX_CANDIDATES:
            return
        positions: dict[Hashable, list[int]] = defaultdict(list)
        for j, computed in reversed(right):
            positions[computed].append(j)
        candidates = [(i, j) for i, computed in left for j in positions.get(computed, ())]
        for i, j in longest_increasing(candidates):
            self.add(i, j)

    def gaps(self) -> list[Gap]:
        """The unpaired rows between the same two pairs, for each such place. Pairs that cross others do not count."""
        ordered = longest_increasing(sorted(self.pairs))
        places: dict[int, Gap] = {}
        for side, unpaired in enumerate((self.left, self.right)):
            paired = [pair[side] for pair in ordered]
            for position in unpaired:
                places.setdefault(bisect_left(paired, position), ([], []))[side].append(position)
        return list(places.values())


def longest_increasing(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest subsequence in which the second numbers increase.

    Of all candidate pairs, by increasing first and decreasing second numbers, it is a longest common subsequence (Hunt
    and Szymanski 1977).
    """
    tails: list[int] = []
    """The smallest last number of a subsequence of each length."""
    tail_indices: list[int] = []
    previous: list[int] = []
    for index, (_, second) in enumerate(pairs):
        length = bisect_left(tails, second)
        tails[length : length + 1] = [second]
        tail_indices[length : length + 1] = [index]
        previous.append(tail_indices[length - 1] if length else -1)
    found = []
    index = tail_indices[-1] if tail_indices else -1
    while index >= 0:
        found.append(pairs[index])
        index = previous[index]
    return found[::-1]
