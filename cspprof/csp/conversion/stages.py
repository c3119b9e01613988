"""Find the stages of a network that can become cross stage partial, from the dataflow of its record.

A stage is a run of neighboring modules inside one module. One map goes in, one map of the same height and width comes
out, and no tensor in between is read elsewhere (CSPNet, Wang et al. 2019, section 3: the layers at one resolution). In
a residual stage all blocks have the width of the input; a dense stage concatenates, so that its output is wider.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cspprof.core.dataflow import Edge, edges
from cspprof.core.kinds import CONVOLUTIONS, POOLS, Kind
from cspprof.core.record import Record
from cspprof.csp.conversion.channels import Coupling, CouplingError, couple

FEWEST_CONVOLUTIONS = 2
"""A stage with fewer convolutions saves nothing, since the transitions of a CSP stage are convolutions too."""
SEQUENTIAL = "torch.nn.modules.container.Sequential"
TAIL_KINDS = frozenset({Kind.NORM, Kind.ACTIVATION, Kind.VIEW, *POOLS})
"""Operations of a transition, besides its 1×1 convolution."""


@dataclass(frozen=True, slots=True)
class Block:
    """A module that runs once and maps one map to one map."""

    path: str
    calls: range
    """The calls of the record from its first to its last operation."""
    entry: int
    """The call that wrote its input, or `dataflow.INPUT`."""
    entry_storage: int
    exit: int
    """The call that wrote its output."""
    input: tuple[int, ...]
    output: tuple[int, ...]
    """Shapes (N, C, H, W)."""
    convolutions: int
    one_resolution: bool
    """Whether all of its convolutions have maps of the input's height and width, or maps of one element."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Neighboring blocks of one module that can become a CSP stage."""

    container: str
    """The path of the module that contains the blocks."""
    blocks: tuple[Block, ...]
    coupling: Coupling
    tail: tuple[Block, ...] = ()
    """The transition behind a dense stage: norm, activation, 1×1 convolution and pool."""
    whole: bool = False
    """Whether the blocks and the tail are everything that runs in the container."""
    first: Block | None = None
    """The block of the same class in front of a residual stage, which changes width or resolution."""

    @property
    def name(self) -> str:
        """The container if the stage is everything in it, else the first and the last block: `layer2.1–3`."""
        if self.whole and self.container:
            return self.container
        first, last = self.blocks[0].path, (*self.blocks, *self.tail)[-1].path
        return first if first == last else f"{first}–{last.rpartition('.')[2]}"

    @property
    def calls(self) -> range:
        """The calls of the blocks, without the tail."""
        return range(self.blocks[0].calls.start, self.blocks[-1].calls.stop)

    @property
    def input(self) -> tuple[int, ...]:
        return self.blocks[0].input

    @property
    def output(self) -> tuple[int, ...]:
        """The shape behind the tail."""
        return (*self.blocks, *self.tail)[-1].output


@dataclass(slots=True)
class Search:
    """The stages of a record, and why other modules are none."""

    stages: list[Stage] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    """Runs of blocks that look like a stage and cannot be converted: name and reason."""


def find_stages(record: Record) -> Search:
    """The stages, outermost first: a stage is not searched for further ones."""
    finder = StageFinder(record)
    stages = finder.search("")
    stages.sort(key=lambda stage: stage.calls.start)
    return Search(stages, finder.left)


class StageFinder:
    """Searches the modules of one record."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.left: dict[str, str] = {}
        self.children: dict[str, list[str]] = {}
        for layer in record.layers:
            if layer.path:
                self.children.setdefault(layer.path.rpartition(".")[0], []).append(layer.path)
        self.called = {layer.path: layer.calls for layer in record.layers}
        self.own = {layer.path: layer for layer in record.layers}
        self.spans = self._spans()
        self.edges = list(edges(record))
        self.ends_at: dict[int, list[Edge]] = {}
        self.starts_at: dict[int, list[Edge]] = {}
        for edge in self.edges:
            self.ends_at.setdefault(edge.target, []).append(edge)
            self.starts_at.setdefault(edge.source, []).append(edge)

    def _spans(self) -> dict[str, range]:
        """The calls from the first to the last operation of each module, if no other module runs in between."""
        positions: dict[str, list[int]] = {}
        for i, layer in enumerate(self.record.calls.layer):
            path = self.record.layers[layer].path
            while True:
                positions.setdefault(path, []).append(i)
                if not path:
                    break
                path = path.rpartition(".")[0]
        return {p: range(at[0], at[-1] + 1) for p, at in positions.items() if at[-1] + 1 - at[0] == len(at)}

    def block(self, path: str) -> Block | None:
        """The module as a block; None if it is not called exactly once, as a ModuleList, or has several inputs or
        outputs."""
        calls = self.spans.get(path)
        if calls is None or self.called.get(path, 0) != 1 or self.own[path].shared_with:
            return None
        into = [e for i in calls for e in self.ends_at.get(i, ()) if e.source not in calls]
        out = [e for i in calls for e in self.starts_at.get(i, ()) if e.target not in calls]
        if len({e.source for e in into}) != 1 or len({e.source for e in out}) != 1:
            return None
        entry, exit_ = into[0].source, out[0].source
        storages = {self._storage(e) for e in into}
        if len(storages) != 1:
            return None
        (entry_storage,) = storages
        input_ = self._shape_as_read(entry_storage, calls.start)
        output = self._shape_as_read(self._storage(out[0]), calls.stop)
        if input_ is None or output is None or len(input_) != 4 or len(output) != 4 or input_[0] != output[0]:
            return None
        specs = [self.record.specs[self.record.calls.spec[i]] for i in calls]
        tensors = [t for s in specs if s.kind in CONVOLUTIONS for t in (s.reads[0], s.writes[0])]
        maps = [t.shape for t in tensors if len(t.shape) == 4]
        convolutions = sum(s.kind in CONVOLUTIONS or (s.kind is Kind.LINEAR and s.reads[0].numel > 9) for s in specs)
        same = all(m[2:] in (input_[2:], (1,) * len(m[2:])) for m in maps)
        return Block(path, calls, entry, entry_storage, exit_, input_, output, convolutions, same)

    def why_no_block(self, calls: range) -> str:
        """Why the module with these calls is not a block from one map to one map."""
        into = {e.source for i in calls for e in self.ends_at.get(i, ()) if e.source not in calls}
        out = [e for i in calls for e in self.starts_at.get(i, ()) if e.target not in calls]
        if len({e.source for e in out}) > 1:
            inner = next(e for e in out if e.source != out[-1].source)
            return f"{self._name(inner.target)} reads a map inside it, the output of {self._name(inner.source)}"
        if len(into) > 1:
            return f"it reads {len(into)} maps, and a stage reads one"
        return "a stage is a row of blocks from one map (N, C, H, W) to one map"

    def why_repeated(self, path: str) -> str:
        """Why a module that runs several times, or has several names, is no block; empty for any other module."""
        layer = self.own[path]
        names = f"it is also the module {', '.join(layer.shared_with[:3])}" if layer.shared_with else ""
        runs = f"it runs {layer.calls} times in one forward pass" if layer.calls > 1 else ""
        reasons = " and ".join(filter(None, (names, runs)))
        return f"{reasons}, and a CSP stage has weights of its own" if reasons else ""

    def _name(self, call: int) -> str:
        """The module that runs a call."""
        if call >= len(self.record.calls.layer):
            return "the output of the model"
        path = self.record.layers[self.record.calls.layer[call]].path
        return path or self.record.model

    def _storage(self, edge: Edge) -> int:
        """The storage through which the tensor of an edge goes."""
        if edge.source >= 0:
            return int(self.record.ops[edge.source].writes[0].storage)
        return next(s.id for s in self.record.storages if s.role == "input" and s.spec.numel >= edge.tensor.numel)

    def _shape_as_read(self, storage: int, start: int) -> tuple[int, ...] | None:
        """The shape that the first call from `start` on reads from a storage; for an output of the model, the shape
        that was written last."""
        calls, specs = self.record.calls, self.record.specs
        for i in range(start, len(calls.spec)):
            spec, at = specs[calls.spec[i]], self.record.offsets[i]
            for place, tensor in enumerate(spec.reads, at):
                if calls.storage[place] == storage:
                    return tensor.shape
        written = (t.shape for op in self.record.ops[:start] for t in op.writes if t.storage == storage)
        return list(written)[-1] if storage in self.record.outputs else None

    # -- search ---------------------------------------------------------------------------------------

    def search(self, container: str) -> list[Stage]:
        """The stages among the children of a module, and inside the other children."""
        paths = [p for p in self.children.get(container, ()) if p in self.spans]
        paths.sort(key=lambda p: self.spans[p].start)
        blocks = [self.block(p) for p in paths]
        found: list[Stage] = []
        searched: set[str] = set()
        for run in self._runs(blocks):
            only = run[0].path
            if len(run) == 1 and self.own[only].class_name == SEQUENTIAL and self._contains_blocks(only):
                searched.add(only)
                inner = self.search(only)
                if len(inner) == 1 and inner[0].whole and not inner[0].tail:  # the row of blocks is one stage
                    inner = list(self._stages(container, run, blocks))
                found += inner
                continue
            for stage in self._stages(container, run, blocks):
                found.append(stage)
                searched |= {b.path for b in (*stage.blocks, *stage.tail)}
                opening = self._opening(stage, blocks)
                searched |= opening
                self.left = {path: reason for path, reason in self.left.items() if path not in opening}
        for path in self.children.get(container, ()):
            if path not in searched and self.children.get(path):
                reason = self.why_repeated(path)
                if reason and self._convolutions_below(path) >= FEWEST_CONVOLUTIONS:
                    self.left[path] = reason
                else:
                    found += self.search(path)
        return found

    def _convolutions_below(self, path: str) -> int:
        """The number of convolutions inside a module that each of its runs calls, without depthwise ones."""
        calls, layers = self.record.calls, self.record.layers
        mixing = [s.kind in CONVOLUTIONS and s.attrs.get("groups", 1) == 1 for s in self.record.specs]
        total: int = sum(
            mixing[spec] and layers[layer].path.startswith(f"{path}.")
            for spec, layer in zip(calls.spec, calls.layer, strict=True)
        )
        return total // max(self.own[path].calls, 1)

    def _opening(self, stage: Stage, blocks: Sequence[Block | None]) -> set[str]:
        """The block of the same class in front of a stage. It changes width or resolution, and stays as it is."""
        at = blocks.index(stage.blocks[0])
        before = blocks[at - 1] if at else None
        same = before is not None and self.own[before.path].class_name == self.own[stage.blocks[0].path].class_name
        changes = before is not None and before.input != before.output
        return {before.path} if before is not None and same and (changes or before.path not in self.left) else set()

    def _contains_blocks(self, container: str) -> bool:
        """Whether a row of modules has modules that have modules."""
        return any(self.children.get(path) for path in self.children.get(container, ()))

    def _runs(self, blocks: Sequence[Block | None]) -> Iterator[list[Block]]:
        """Maximal runs of connected blocks at one resolution, either all of one width or all growing."""
        run: list[Block] = []
        for block in blocks:
            if block is None or not block.one_resolution or block.input[2:] != block.output[2:]:
                if run:
                    yield run
                run = []
            elif run and self._continues(run[-1], block):
                run.append(block)
            else:
                if run:
                    yield run
                run = [block]
        if run:
            yield run

    def _continues(self, last: Block, block: Block) -> bool:
        """Whether `block` alone reads the output of `last`, and changes its width in the same way."""
        return (
            self._continues_with(last, block)
            and (block.output[1] > block.input[1]) == (last.output[1] > last.input[1])
            and (block.output[1] >= block.input[1])
        )

    def _continues_with(self, last: Block, block: Block) -> bool:
        """Whether `block` reads the output of `last`, and no other module does."""
        readers = [e.target for e in self.starts_at[last.exit] if e.target not in last.calls]
        return block.entry == last.exit and all(reader in block.calls for reader in readers)

    def _stages(self, container: str, run: list[Block], blocks: Sequence[Block | None]) -> Iterator[Stage]:
        """The whole run as a stage or, if the channels cannot be followed through some blocks, its other parts."""
        first = run[0]
        grows = first.output[1] > first.input[1]
        if first.output[1] < first.input[1]:
            return
        parts: list[list[Block]] = [[]]
        for block in run:
            try:
                couple(self.record, block.calls, block.entry_storage, block.input, [] if grows else [block.exit])
                parts[-1].append(block)
            except CouplingError as error:
                if self._mixes(run):
                    self.left[block.path] = error.message
                parts.append([])
        for part in parts:
            while part and not part[0].convolutions:
                part = part[1:]
            while part and not part[-1].convolutions and self._mixes(part[:-1]):
                part = part[:-1]
            if part and self._mixes(part):
                stage = self._stage(container, part, blocks, grows)
                if stage is not None:
                    yield stage

    def _stage(self, container: str, run: list[Block], blocks: Sequence[Block | None], grows: bool) -> Stage | None:
        first, last = run[0], run[-1]
        calls = range(first.calls.start, last.calls.stop)
        boundaries = [] if grows else [b.exit for b in run]
        try:
            coupling = couple(self.record, calls, first.entry_storage, first.input, boundaries)
        except CouplingError as error:  # each block can be followed, and the row of them cannot
            self.left[f"{first.path}–{last.path.rpartition('.')[2]}"] = error.message
            return None
        if grows and not coupling.is_dense():
            name = Stage(container, tuple(run), coupling).name
            grows_how = f"its width grows from {first.input[1]} to {last.output[1]}"
            self.left[name] = (
                f"{grows_how}, and the input is added to a part of the output: both would have to change by one factor"
                if coupling.is_residual()
                else f"{grows_how} without a concatenation of its input"
            )
            return None
        tail = self._tail(last, blocks) if grows else ()
        all_calls = range(first.calls.start, (*run, *tail)[-1].calls.stop)
        whole = self.spans.get(container) == all_calls and self._only_children_run(container)
        before = blocks[blocks.index(first) - 1] if blocks.index(first) else None
        opens = (
            before is not None
            and not grows
            and self.own[before.path].class_name == self.own[first.path].class_name != SEQUENTIAL
            and self._continues_with(before, first)
        )
        return Stage(container, tuple(run), coupling, tail, whole, before if opens else None)

    def _mixes(self, run: Sequence[Block]) -> bool:
        """Whether there are enough layers that mix channels on maps, and one that sees more than one element."""
        specs = [self.record.specs[self.record.calls.spec[i]] for b in run for i in b.calls]
        convolutions = [s for s in specs if s.kind in CONVOLUTIONS and s.writes[0].numel > s.writes[0].shape[1]]
        depthwise = sum(s.attrs.get("groups", 1) == s.reads[0].shape[1] > 1 for s in convolutions)
        mixing = len(convolutions) - depthwise + sum(s.kind is Kind.LINEAR and len(s.reads[0].shape) > 2 for s in specs)
        spatial = [s for s in specs if s.kind in POOLS and s.writes[0].numel > s.writes[0].shape[1]]
        return mixing >= FEWEST_CONVOLUTIONS and any(
            max(s.attrs.get("kernel", (1,))) > 1 for s in convolutions + spatial
        )

    def _only_children_run(self, container: str) -> bool:
        """Whether the module has no operation of its own."""
        return all(
            self.record.layers[self.record.calls.layer[i]].path != container for i in self.spans.get(container, ())
        )

    def _tail(self, last: Block, blocks: Sequence[Block | None]) -> tuple[Block, ...]:
        """The transition that follows a dense stage in the same module."""
        tail: list[Block] = []
        following = list(blocks)
        for block in following[following.index(last) + 1 :]:
            before = tail[-1] if tail else last
            if (
                block is None
                or block.entry != before.exit
                or block.convolutions + sum(b.convolutions for b in tail) > 1
            ):
                break
            if any(e.target not in block.calls for e in self.starts_at[before.exit] if e.target not in before.calls):
                break
            specs = [self.record.specs[self.record.calls.spec[i]] for i in block.calls]
            if not all(s.kind in TAIL_KINDS or _is_pointwise(s.attrs.get("kernel"), s.kind) for s in specs):
                break
            tail.append(block)
            if any(s.kind in POOLS for s in specs):
                break
        return tuple(tail)


def _is_pointwise(kernel: object, kind: Kind) -> bool:
    return kind is Kind.CONV and kernel == (1, 1)
