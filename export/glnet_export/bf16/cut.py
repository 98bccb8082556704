"""Where a graph is cut: what comes before may compute in bfloat16, what follows stays in float32."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import onnx

from glnet_infer.errors import ExportError, tested_versions

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass
class _Graph:
    """Nodes of a graph by what they make, and those that multiply with weights.

    Attributes:
        makers: Nodes by the names of their outputs.
        narrow: Outputs of layers that may be narrow.
        wide: Outputs of all other nodes that multiply with weights.
        found: Names of the narrow layers that are in the graph.
    """

    makers: dict[str, onnx.NodeProto]
    narrow: set[str] = field(default_factory=set)
    wide: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, graph: onnx.GraphProto, layers: Collection[str]) -> "_Graph":
        found = cls({output: node for node in graph.node for output in node.output})
        weights = {each.name for each in graph.initializer}
        for node in graph.node:
            given = [name for name in node.input if name in weights] if node.op_type in _WEIGHTED else []
            names = {name.removesuffix(".weight") for name in given}.intersection(layers)
            found.found |= names
            if given:
                (found.narrow if names else found.wide).add(node.output[0])
        return found

    def before(self, tensors: Iterable[str], stop: Collection[str] = ()) -> set[str]:
        """The tensors and those that they are made of, back to those of ``stop``. Shapes need no values."""
        seen: set[str] = set()
        waiting = list(tensors)
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self.makers:
                continue
            seen.add(name)
            if name not in stop and self.makers[name].op_type != "Shape":
                waiting += self.makers[name].input
        return seen


def cut_of(model: onnx.ModelProto, layers: Collection[str]) -> list[str]:
    """Names of the tensors that a graph is cut at.

    The first part is all that the narrow layers need. Of that, the second part makes anew in float32 what layers give that
    are not narrow, such as an estimate that both parts read.

    Args:
        model: The float32 graph.
        layers: Names of the modules whose layers may be narrow.

    Raises:
        ExportError: A layer is not in the graph.
    """
    graph = _Graph.of(model.graph, layers)
    if missing := sorted(set(layers) - graph.found):
        raise ExportError(
            "Bfloat16 was not set up.",
            why=f"the graph has no layer {missing[0]}, nor {len(missing) - 1} others",
            fix=tested_versions("export"),
        )
    first, weighted = graph.before(graph.narrow), graph.narrow | graph.wide
    cut: set[str] = set()

    def is_cut(name: str) -> bool:
        return name in first and not graph.narrow.isdisjoint(graph.before([name], stop=weighted))

    seen: set[str] = set()
    waiting = [output.name for output in model.graph.output]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in graph.makers:
            continue
        seen.add(name)
        if is_cut(name):
            cut.add(name)
        elif graph.makers[name].op_type != "Shape":
            waiting += graph.makers[name].input
    return sorted(cut)
