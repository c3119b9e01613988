"""Walk over a graph in execution order, also over the functions that it calls, its branches and its loops."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from cspprof.core.errors import SourceError
from cspprof.core.record import Record
from cspprof.core.tensors import TensorSpec
from cspprof.sources.onnx_graph.control_flow import ControlFlow
from cspprof.sources.onnx_graph.nodes import NodeRecorder
from cspprof.sources.onnx_graph.protos import declared_specs, passed_values, shape_text, subgraphs, values_read
from cspprof.sources.onnx_graph.values import MAX_DEPTH, Scope, UncountableError

MAX_REPEATED = 30_000
"""How many nodes of functions and of graphs in nodes are visited. Each call and each round visits them again. A
thousand bytes of names and attributes count as one more node."""


MISFIT = "its inputs, outputs or attributes do not fit the operator"


class GraphWalker:
    """Visits the nodes of a model and lets others record what they do."""

    def __init__(self, path: Path, model: ModelProto, inputs: Mapping[str, TensorSpec]) -> None:
        self.path, self.model, self.inputs = path, model, inputs
        self.nodes = NodeRecorder(path, model)
        self.control_flow = ControlFlow(self.nodes, self.walk)
        self.functions: dict[tuple[str, str, str], FunctionProto] = {
            (f.domain, f.name, f.overload): f for f in model.functions
        }
        self.repeated_left = MAX_REPEATED
        self.inner_names: dict[str, tuple[Mapping[str, TensorSpec], frozenset[str]]] = {}
        """The names that a function declares and reads, by its place."""

    def record(self, source: str, notes: tuple[str, ...]) -> Record:
        """The record of the whole graph. Raises SourceError with the name of the node that contradicts its inputs."""
        graph = self.model.graph
        opsets = {o.domain: o.version for o in self.model.opset_import}
        scope = Scope("", opsets, ChainMap(), declared_specs((*graph.value_info, *graph.output)), values_read(graph))
        for name, spec in self.inputs.items():
            scope.values[name] = self.nodes.recording.input(name, spec)
        if self._expanded(graph, {}, 0) - sum(map(_weight, graph.node)) > MAX_REPEATED:
            raise self._too_many_nodes()
        self.walk(graph, scope)
        self._check_outputs(scope)
        outputs = [scope.values[output.name] for output in graph.output]
        return self.nodes.recording.record(self.path, source, self.inputs, outputs, notes)

    def _expanded(self, graph: GraphProto | FunctionProto, sizes: dict[tuple[str, str, str], int], depth: int) -> int:
        """The weight of the nodes with those of all functions that they call. `sizes` remembers it for each
        function."""
        self._check_depth(depth)
        count = sum(map(_weight, graph.node))
        for node in graph.node:
            count += sum(self._expanded(inner, sizes, depth + 1) for _, inner in subgraphs(node))
            key = node.domain, node.op_type, node.overload
            if key in self.functions:
                if key not in sizes:
                    sizes[key] = self._expanded(self.functions[key], sizes, depth + 1)
                count += sizes[key]
        return count

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise SourceError(
                f"{self.path.name}: functions and graphs in nodes nest deeper than {MAX_DEPTH}", "Simplify the graph."
            )

    def _too_many_nodes(self) -> SourceError:
        return SourceError(
            f"{self.path.name}: its functions and loops expand to more than {MAX_REPEATED:,} nodes",
            "Export the model without local functions, or write them out: onnx.inliner.inline_local_functions(model).",
        )

    def walk(self, graph: GraphProto | FunctionProto, scope: Scope) -> None:
        """Visit the nodes of a graph or a function whose inputs are in the scope."""
        self._check_depth(scope.depth)
        if isinstance(graph, GraphProto):
            if scope.depth:
                self.repeated_left -= passed_values(graph) // 10
            self.nodes.add_initializers(graph, scope)
        for node in graph.node:
            if scope.depth:
                self.repeated_left -= _weight(node) + _argument_weight(node, scope)
            if self.repeated_left < 0:
                raise self._too_many_nodes()
            self._visit(node, scope)

    # -- nodes --------------------------------------------------------------------------------------

    def _visit(self, node: NodeProto, scope: Scope) -> None:
        try:
            node = scope.resolve(node)
            missing = [name for name in node.input if name and name not in scope.values]
            if missing:
                raise self.nodes.shapes.error(
                    node, f"reads {missing[0]!r}, which no earlier node computes",
                    "Sort the nodes topologically, or export the model again.",
                )  # fmt: skip
            function = self.functions.get((node.domain, node.op_type, node.overload))
            if function is not None:
                self._call_function(node, function, scope)
            elif not node.domain and node.op_type in ("If", "Loop", "Scan"):
                self.control_flow.add(node, scope)
            elif not node.domain and node.op_type == "Constant":
                self.nodes.add_constant(node, scope)
            else:
                self.nodes.add_node(node, scope)
        except (SourceError, UncountableError):
            raise
        except Exception as error:  # the library raises errors of several classes
            what = (str(error).splitlines() or [MISFIT])[-1].strip()
            if isinstance(error, (LookupError, TypeError, AttributeError, ArithmeticError, AssertionError)):
                what = MISFIT  # the text of the error is about our code
            raise self.nodes.shapes.error(node, what, "Export it again, or simplify the graph (onnxsim).") from None

    # -- functions ----------------------------------------------------------------------------------

    def _call_function(self, node: NodeProto, function: FunctionProto, scope: Scope) -> None:
        """Visit the nodes of a function with the operands of this call."""
        if len(node.input) > len(function.input) or len(node.output) > len(function.output):
            raise ValueError("it has more inputs or outputs than its function")
        arguments = {a.name: a for a in function.attribute_proto} | {a.name: a for a in node.attribute}
        place = f"{function.domain}.{function.name}.{function.overload}"
        if place not in self.inner_names:
            self.inner_names[place] = declared_specs(function.value_info), values_read(function)
        inner = Scope(
            place, {o.domain: o.version for o in function.opset_import} or scope.opsets, ChainMap(),
            *self.inner_names[place], arguments,
            frozenset(function.input) - {f for f, n in zip(function.input, node.input, strict=False) if n},
            scope.depth + 1, self.nodes.layer_of(node, scope),
        )  # fmt: skip
        for formal, name in zip(function.input, node.input, strict=False):
            if name:
                inner.values[formal] = scope.values[name]
        self.walk(function, inner)
        scope.bind(node.output, [inner.values.get(name) for name in function.output])

    # -- outputs ------------------------------------------------------------------------------------

    def _check_outputs(self, scope: Scope) -> None:
        for output in self.model.graph.output:
            if output.name not in scope.values:
                raise SourceError(
                    f"{self.path.name}: no node computes the output {output.name!r}", "Export the model again."
                )
            declared = [d.dim_value for d in output.type.tensor_type.shape.dim]  # 0: open
            shape = scope.values[output.name].spec.shape
            fits = len(declared) == len(shape) and all(d in (0, n) for d, n in zip(declared, shape, strict=True))
            if declared and not fits:
                raise SourceError(
                    f"{self.path.name}: the output {output.name!r} is declared as {shape_text(declared)}, but its node "
                    f"computes {shape_text(shape)}",
                    "Export it again. If you changed dimensions in the file, leave them open.",
                )


def _argument_weight(node: NodeProto, scope: Scope) -> int:
    """The weight of the attributes that a node in a function takes from the call."""
    names = [a.ref_attr_name for a in node.attribute if a.ref_attr_name in scope.arguments]
    return sum(int(scope.arguments[name].ByteSize()) // 1000 for name in names)


def _weight(node: NodeProto) -> int:
    """How many nodes a visit of this one takes as long as: more than 1 if it has long names or attributes."""
    if node.op_type == "Constant" and any(a.HasField("t") for a in node.attribute):
        return 1
    return 1 + int(node.ByteSize()) // 1000
