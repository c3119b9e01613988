"""The graphs in nodes: the branches of `If`, the rounds of `Loop` and `Scan`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnx import GraphProto, NodeProto

from cspprof.core.errors import SourceError
from cspprof.core.kinds import Kind
from cspprof.core.record import OpSpec
from cspprof.core.tensors import TensorSpec, is_possible
from cspprof.sources.onnx_graph.nodes import NodeRecorder, attributes_of, small_array
from cspprof.sources.onnx_graph.protos import declared_specs, passed_values, subgraphs
from cspprof.sources.onnx_graph.values import Origin, Scope, UncountableError, Value
from cspprof.sources.onnx_graph.weights import FIRST_STATE

MAX_UNROLLED = 20_000
"""How many nodes the rounds of loops visit. A longer loop is not counted."""


class ControlFlow:
    """Records the nodes `If`, `Loop` and `Scan`."""

    def __init__(self, nodes: NodeRecorder, walk: Callable[[GraphProto, Scope], None]) -> None:
        """`walk` visits the nodes of a graph."""
        self.nodes, self.walk = nodes, walk
        self.recording = nodes.recording
        self.unrolled_left = MAX_UNROLLED
        self.inner_names: dict[str, tuple[Mapping[str, TensorSpec], frozenset[str]]] = {}
        """The names that a graph in a node declares and reads, by its place."""

    def add(self, node: NodeProto, scope: Scope) -> None:
        """Record every round of a loop and the branch that runs, if that is known; else one call of unknown cost."""
        start = self.recording.checkpoint()
        try:
            results = {"If": self._branch, "Loop": self._loop, "Scan": self._scan}[node.op_type](node, scope)
        except (UncountableError, SourceError) as error:
            if isinstance(error, SourceError) and not all(name in scope.declared for name in node.output if name):
                raise
            self.recording.restore(start)
            self._add_uncounted(node, scope)
        else:
            scope.bind(node.output, results)

    def _run(self, node: NodeProto, attribute: str, inputs: Sequence[Value], scope: Scope) -> list[Value]:
        """The outputs of a graph in a node, after a walk over it."""
        graph = _graph(node, attribute)
        if len(inputs) != len(graph.input):
            raise ValueError(f"its graph {attribute} has {len(graph.input)} inputs instead of {len(inputs)}")
        inner = self._inside(node, attribute, graph, scope)
        inner.values.update(zip((v.name for v in graph.input), inputs, strict=True))
        self.walk(graph, inner)
        missing = [v.name for v in graph.output if v.name not in inner.values]
        if missing:
            raise ValueError(f"its graph {attribute} does not compute its output {missing[0]!r}")
        return [inner.values[v.name] for v in graph.output]

    def _inside(self, node: NodeProto, attribute: str, graph: GraphProto, scope: Scope) -> Scope:
        place = _place(scope.place, node, attribute)
        if place not in self.inner_names:
            self._collect_names(graph, place)
        return scope.inside(place, *self.inner_names[place], self.nodes.layer_of(node, scope))

    def _collect_names(self, graph: GraphProto, place: str) -> frozenset[str]:
        """The values that a graph and the graphs in it read, after noting those of each."""
        names = {output.name for output in graph.output}
        for node in graph.node:
            names.update(node.input)
            for attribute, inner in subgraphs(node):
                names |= self._collect_names(inner, _place(place, node, attribute))
        self.inner_names[place] = declared_specs((*graph.value_info, *graph.output)), frozenset(names)
        return self.inner_names[place][1]

    def _branch(self, node: NodeProto, scope: Scope) -> list[Value]:
        condition = scope.values[node.input[0]].array
        if condition is None:
            raise UncountableError
        return self._run(node, "then_branch" if condition.all() else "else_branch", (), scope)

    def _loop(self, node: NodeProto, scope: Scope) -> list[Value]:
        """All rounds of a Loop. After each round its condition must be known."""
        body, limit, goes_on = _graph(node, "body"), self._limit(node, scope), self._condition(node, scope)
        carried = [self._carried(scope.values[name]) for name in node.input[2:]]
        nodes = _node_count(body)
        if limit is not None and _runs_to_its_limit(body) and limit * nodes > self.unrolled_left:
            raise UncountableError
        rounds: list[list[Value]] = []
        while goes_on and (limit is None or len(rounds) < limit):
            self._take_round(nodes)
            counters = (self._number(node, body, scope, len(rounds)), self._number(node, body, scope, True))
            flag, *results = self._run(node, "body", (*counters, *carried), scope)
            if flag.array is None:
                raise UncountableError
            goes_on = bool(flag.array.all())
            carried = [self._carried(value) for value in results[: len(carried)]]
            rounds.append(results[len(carried) :])
        slices = len(body.output) - 1 - len(carried)
        return [*carried, *self._stacks(node, rounds, (0,) * slices, scope)]

    def _limit(self, node: NodeProto, scope: Scope) -> int | None:
        """The number of rounds of a Loop; None: no limit."""
        if not node.input or not node.input[0]:
            return None
        array = scope.values[node.input[0]].array
        if array is None:
            raise UncountableError
        return int(array.item())

    def _condition(self, node: NodeProto, scope: Scope) -> bool:
        """Whether the first round of a Loop runs."""
        if len(node.input) < 2 or not node.input[1]:
            return True
        array = scope.values[node.input[1]].array
        if array is None:
            raise UncountableError
        return bool(array.all())

    def _scan(self, node: NodeProto, scope: Scope) -> list[Value]:
        """All rounds of a Scan: one for each slice of its last inputs."""
        states, slices, length = self._scanned(node, scope)
        body, attrs = _graph(node, "body"), attributes_of(node)
        nodes = _node_count(body)
        if length * nodes > self.unrolled_left:
            raise UncountableError
        rounds: list[list[Value]] = []
        for _ in range(length):
            self._take_round(nodes)
            results = self._run(node, "body", (*states, *slices), scope)
            states = [self._carried(value) for value in results[: len(states)]]
            rounds.append(results[len(states) :])
        count = len(body.output) - len(states)
        return [*states, *self._stacks(node, rounds, attrs.get("scan_output_axes") or (0,) * count, scope)]

    def _scanned(self, node: NodeProto, scope: Scope) -> tuple[list[Value], list[Value], int]:
        """The first states of a Scan, a slice of each of its other inputs, and the number of slices."""
        if scope.opsets.get("", 9) < 9:  # has a batch dimension and lengths of sequences
            raise UncountableError
        attrs = attributes_of(node)
        count = int(attrs["num_scan_inputs"])
        values = [scope.values[name] for name in node.input]
        if not 0 < count <= len(values):
            raise ValueError(f"num_scan_inputs is {count}")
        axes = attrs.get("scan_input_axes") or (0,) * count
        states, slices, lengths = [self._carried(value) for value in values[:-count]], [], set()
        for value, axis in zip(values[-count:], axes, strict=True):
            dims = list(value.spec.shape)
            lengths.add(dims.pop(axis))
            slices.append(Value(TensorSpec(tuple(dims), value.spec.dtype), value.storage))
        (length,) = lengths
        return states, slices, length

    def _take_round(self, nodes: int) -> None:
        self.unrolled_left -= nodes
        if self.unrolled_left < 0:
            raise UncountableError

    def _carried(self, value: Value) -> Value:
        """A value that a round passes to the next one. Only a small integer is still a constant there: an engine
        computes everything else in each round."""
        if not value.constant or (value.array is not None and "float" not in value.spec.dtype):
            return value
        return self.nodes.as_activation(value, FIRST_STATE)

    def _number(self, node: NodeProto, body: GraphProto, scope: Scope, number: int | bool) -> Value:
        """The number of the round, or the condition, as inputs of the body of a Loop."""
        spec = TensorSpec((), "bool" if isinstance(number, bool) else "int64")
        place = f"{scope.place}/{node.name or node.output[0]}"
        name = body.input[0 if spec.dtype == "int64" else 1].name
        return self.recording.store(place, name, spec, Origin.GENERATED, small_array(number, spec))

    def _stacks(self, node: NodeProto, rounds: list[list[Value]], axes: Sequence[int], scope: Scope) -> list[Value]:
        """The outputs that have one slice from each round."""
        if axes and not rounds:
            raise UncountableError
        return [self._stack(node, [r[i] for r in rounds], axis, scope) for i, axis in enumerate(axes)]

    def _stack(self, node: NodeProto, slices: list[Value], axis: int, scope: Scope) -> Value:
        spec = _stacked(slices[0].spec, len(slices), axis)
        if any(value.spec != slices[0].spec for value in slices):
            raise UncountableError
        out, reads = self.recording.activation(spec), [value for value in slices if not value.constant]
        op = OpSpec(f"onnx.{node.op_type}", Kind.CONCAT, tuple(value.spec for value in reads), (), (spec,))
        self.recording.call(node, self.nodes.layer_of(node, scope), op, [value.storage for value in (*reads, out)])
        return out

    # -- graphs in nodes whose work is unknown --------------------------------------------------------

    def _add_uncounted(self, node: NodeProto, scope: Scope) -> None:
        """One call of unknown cost, which reads everything that the graphs of the node read."""
        start, specs, reason = self.recording.checkpoint(), None, None
        try:
            specs = self._unknown_outputs(node, scope)
            parameters = self.recording.parameters.after(start.parameters)
        except (UncountableError, SourceError, ValueError, LookupError) as error:
            reason = error if isinstance(error, SourceError) else None
            parameters = self._all_constants(node, scope)
        self.recording.restore(start)
        self.recording.parameters.add_all(sorted(parameters))
        inner = [self._inside(node, attribute, graph, scope) for attribute, graph in subgraphs(node)]
        captured = sorted({name for graph in inner for name in graph.read if name in scope.values})
        names = dict.fromkeys([name for name in node.input if name] + captured)
        reads = [scope.values[name] for name in names if not scope.values[name].constant]
        writes = []
        for i, name in enumerate(node.output):
            spec = scope.declared.get(name) or (specs[i] if specs and i < len(specs) else None)
            if not name:
                continue
            if spec is None:
                raise reason or self.nodes.shapes.error(
                    node, f"the shape of its output {name!r} is known only when it runs",
                    "Declare it in the file (value_info) to count everything else.",
                )  # fmt: skip
            scope.values[name] = self.recording.activation(spec)
            writes.append(scope.values[name])
        weights = sorted(parameters)
        op = OpSpec(
            f"onnx.{node.op_type}", Kind.UNKNOWN, tuple(value.spec for value in reads),
            tuple(self.recording.stored[w].spec for w in weights), tuple(value.spec for value in writes), {}, None,
        )  # fmt: skip
        storages = [*(value.storage for value in reads), *weights, *(value.storage for value in writes)]
        self.recording.call(node, self.nodes.layer_of(node, scope), op, storages)

    def _unknown_outputs(self, node: NodeProto, scope: Scope) -> list[TensorSpec | None]:
        """The specs of the outputs as far as they do not depend on values."""
        if node.op_type == "If":
            branches = [self._run(node, name, (), scope) for name in ("then_branch", "else_branch")]
            return [a.spec if a.spec == b.spec else None for a, b in zip(*branches, strict=True)]
        attrs, body = attributes_of(node), _graph(node, "body")
        rounds: int | None
        if node.op_type == "Scan":
            states, slices, rounds = self._scanned(node, scope)
            inputs = [*states, *slices]
            axes = attrs.get("scan_output_axes") or (0,) * (len(body.output) - len(states))
        else:
            states = [self._carried(scope.values[name]) for name in node.input[2:]]
            counters = [TensorSpec((), "int64"), TensorSpec((), "bool")]
            inputs = [*map(self.recording.activation, counters), *states]
            rounds = self._known_rounds(node, body, scope)
            axes = (0,) * (len(body.output) - 1 - len(states))
        results = self._run(node, "body", [Value(value.spec, value.storage) for value in inputs], scope)
        results = results[node.op_type == "Loop" :]
        specs = [a.spec if a.spec == b.spec else None for a, b in zip(states, results, strict=False)]
        for value, axis in zip(results[len(states) :], axes, strict=True):
            specs.append(None if rounds is None else _stacked(value.spec, rounds, axis))
        return specs

    def _known_rounds(self, node: NodeProto, body: GraphProto, scope: Scope) -> int | None:
        try:
            runs = self._condition(node, scope) and _runs_to_its_limit(body)
            return self._limit(node, scope) if runs else None
        except UncountableError:
            return None

    def _all_constants(self, node: NodeProto, scope: Scope) -> set[int]:
        """The stored tensors of floating point in the graphs of a node, and those around it that they read."""
        found: set[int] = set()
        for attribute, graph in subgraphs(node):
            inner = self._inside(node, attribute, graph, scope)
            self.nodes.add_initializers(graph, inner)
            for child in graph.node:
                if child.op_type == "Constant" and not child.domain:
                    self.nodes.add_constant(scope.resolve(child), inner)
                found |= self._all_constants(child, inner)
            for name in inner.read & inner.values.keys():
                value = inner.values[name]
                if value.constant and "float" in value.spec.dtype and value.spec.numel > 1:
                    found |= value.sources or set()
        return found


def _place(around: str, node: NodeProto, attribute: str) -> str:
    return f"{around}/{node.name or next(iter(node.output), '')}.{attribute}"


def _node_count(graph: GraphProto) -> int:
    """How many nodes a round visits, at least one. Ten values that it passes or stores count as one more."""
    nodes = sum(1 + sum(_node_count(inner) for _, inner in subgraphs(node)) for node in graph.node)
    return max(1, nodes + passed_values(graph) // 10)


def _runs_to_its_limit(body: GraphProto) -> bool:
    """Whether the body of a Loop passes its condition on, so that only the number of rounds ends it."""
    copies = {n.output[0]: n.input[0] for n in body.node if n.op_type == "Identity" and n.input and n.output}
    condition = body.output[0].name
    for _ in copies:
        condition = copies.get(condition, condition)
    return bool(condition == body.input[1].name)


def _stacked(spec: TensorSpec, count: int, axis: int) -> TensorSpec:
    """The spec of `count` slices along a new dimension."""
    dims = list(spec.shape)
    dims.insert(axis + len(dims) + 1 if axis < 0 else axis, count)
    stacked = TensorSpec(tuple(dims), spec.dtype)
    if not is_possible(stacked):
        raise ValueError(f"its output {stacked} is impossible")
    return stacked


def _graph(node: NodeProto, name: str) -> GraphProto:
    for attribute, graph in subgraphs(node):
        if attribute == name:
            return graph
    raise ValueError(f"the attribute {name} is absent")
