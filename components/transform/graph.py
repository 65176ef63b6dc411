"""Runs only the part of Transform's graph that the given features need.

TensorFlow Transform's own layer runs the whole graph, with made-up values for missing features. So a query tower would contain the
processing of an item's texts, run it for every request, and include it wherever it is traced, saved and loaded; and as a Keras
model it would be traced again for each SavedModel.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import tensorflow as tf
import tensorflow_transform as tft

_loaded: "WeakKeyDictionary[tft.TFTransformOutput, TransformGraph]" = WeakKeyDictionary()
_TABLES = ("resources", "initializers", "assets")  # TensorFlow Transform's names in its SavedModel


class TransformGraph:
    """The graph of a Transform step, loaded.

    Args:
        folder: the folder of the SavedModel.

    Attributes:
        tables: its vocabularies; any object saved with the graph must hold them.
    """

    def __init__(self, folder: str) -> None:
        root = tf.saved_model.load(folder)
        function = root.transform_fn
        graph = function.graph
        ((specs,), _) = function.structured_input_signature
        placeholders = graph.inputs[: len(graph.inputs) - len(graph.internal_captures)]
        self.tables = [getattr(root, name) for name in _TABLES]
        self._inputs: Mapping[str, Any] = tf.nest.pack_sequence_as(specs, placeholders, expand_composites=True)
        self._outputs: Mapping[str, Any] = tf.nest.pack_sequence_as(
            function.structured_outputs, graph.outputs, expand_composites=True
        )
        self._captures = list(zip(graph.internal_captures, function.captured_inputs, strict=True))
        self._function = function  # keeps its graph and tables alive
        self._definition = graph.as_graph_def()
        self._nodes = {node.name: node for node in self._definition.node}
        self._library = {definition.signature.name: definition for definition in self._definition.library.function}

    @classmethod
    def of(cls, output: tft.TFTransformOutput) -> "TransformGraph":
        """Load the graph of a step's output, once."""
        if output not in _loaded:
            _loaded[output] = cls(output.transform_savedmodel_dir)
        return _loaded[output]

    @property
    def inputs(self) -> dict[str, tf.DType]:
        """The raw features that the step knows, by name, with their dtypes."""
        return {name: values.dtype for name, values in self._inputs.items()}

    def __call__(self, raw: Mapping[str, tf.SparseTensor]) -> dict[str, Any]:
        """Compute by name what can be computed from raw features; call it in a graph.

        Raises:
            KeyError: the step has no such feature.
        """
        feeds: dict[str, tf.Tensor] = {}
        for name, values in raw.items():
            flat = (tf.nest.flatten(tensors, expand_composites=True) for tensors in (self._inputs[name], values))
            feeds |= {placeholder.name: value for placeholder, value in zip(*flat, strict=True)}
        graph = tf.compat.v1.get_default_graph()
        feeds |= {placeholder.name: graph.capture(value) for placeholder, value in self._captures}
        available = self._available(name.partition(":")[0] for name in feeds)
        wanted = {
            name: value
            for name, value in self._outputs.items()
            if all(tensor.op.name in available for tensor in tf.nest.flatten(value, expand_composites=True))
        }
        flat = tf.nest.flatten(wanted, expand_composites=True)
        subgraph = self._part([tensor.op.name for tensor in flat], available)
        computed = {f"{node.name}:0" for node in subgraph.node}
        used = {name: value for name, value in feeds.items() if name in computed}
        imported = tf.graph_util.import_graph_def(subgraph, used, [tensor.name for tensor in flat], name="transform")
        for value, original in zip(imported, flat, strict=True):
            value.set_shape(original.shape)
        return tf.nest.pack_sequence_as(wanted, imported, expand_composites=True)

    def _available(self, fed: Iterable[str]) -> set[str]:
        """Return the operations that need no features except the given ones."""
        available = dict.fromkeys(fed, True)
        for name in self._nodes:
            stack = [name]  # not recursive: a graph may be deep
            while stack:
                current = stack[-1]
                inputs = _inputs(self._nodes[current])
                unknown = [] if current in available else [source for source in inputs if source not in available]
                stack += unknown
                if not unknown:
                    is_fed = self._nodes[current].op != "Placeholder" and all(available[source] for source in inputs)
                    available.setdefault(stack.pop(), is_fed)
        return {name for name, is_available in available.items() if is_available}

    def _part(self, wanted: Iterable[str], available: set[str]) -> tf.compat.v1.GraphDef:
        """Return the operations that the wanted ones need, including control dependencies, as far as available."""
        names, stack = set[str](), list(wanted)
        while stack:
            name = stack.pop()
            if name not in names:
                names.add(name)
                stack += _inputs(self._nodes[name])
                stack += [control for control in _waited_for(self._nodes[name]) if control in available]
        subgraph = tf.compat.v1.GraphDef(versions=self._definition.versions)
        for node in self._definition.node:
            if node.name in names:
                added = subgraph.node.add()
                added.CopyFrom(node)
                added.attr.pop("_class", None)  # its colocated operation may be left out
                unavailable = {f"^{control}" for control in _waited_for(node) if control not in available}
                added.input[:] = [source for source in node.input if source not in unavailable]
        stack, called = _called(subgraph.node), set[str]()
        while stack:
            name = stack.pop()
            if name not in called:
                called.add(name)
                stack += _called(self._library[name].node_def)
        subgraph.library.function.extend(self._library[name] for name in sorted(called))
        return subgraph


def _inputs(node: Any) -> list[str]:
    """Return the operations whose results an operation takes."""
    return [source.partition(":")[0] for source in node.input if not source.startswith("^")]


def _waited_for(node: Any) -> list[str]:
    """Return the control dependencies of an operation."""
    return [source[1:] for source in node.input if source.startswith("^")]


def _called(nodes: Iterable[Any]) -> list[str]:
    """Return the functions that operations call."""
    attributes = [attribute for node in nodes for attribute in node.attr.values()]
    return [function.name for a in attributes for function in (a.func, *a.list.func) if function.name]
