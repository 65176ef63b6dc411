"""Checks that an older serving TensorFlow has all operations of the SavedModels that this one wrote.

TF Serving is released after TensorFlow. A SavedModel names operations; a release cannot load it if it lacks one of them, an
attribute of one, or a type of an attribute. Attributes with their default value are not written to the file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow as tf
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

from serving.settings import ServingTensorFlow


@dataclass(frozen=True)
class Lacking:
    """What a release lacks of the installed TensorFlow's registry of operations.

    Attributes:
        operations: by name.
        attributes: of operations that it has, their names.
        types: of attributes that it has, by `operation.attribute`.
    """

    operations: frozenset[str] = frozenset()
    attributes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    types: Mapping[str, frozenset[str]] = field(default_factory=dict)


_GRADIENTS = ("Adagrad", "AdagradMomentum", "Adam", "Ftrl", "Sgd")
_SPARSE = "XlaSparseDenseMatmul"
_BY_OPTIMIZER = [
    f"{_SPARSE}GradWith{name}And{kind}" for name in _GRADIENTS for kind in ("CsrInput", "StaticBufferSize")
]
# What tests/end_to_end/test_stock_tensorflow.py finds by the registries of both.
LACKING: Mapping[ServingTensorFlow, Lacking] = {
    "2.19": Lacking(
        frozenset(
            [
                *("DecodeJxl", "DecodeWebP", "TPUDummyInput", "_CopyFromGpuToHost", "_CopyFromHostToGpu"),
                *("XlaSparseActivationsUnstack", "XlaSparseGradientsStack"),
                *(f"{_SPARSE}CustomCombinerOnTcGradWith{name}AndCsrInput" for name in _GRADIENTS),
                *(f"{_SPARSE}CustomCombinerOnTc{kind}WithCsrInput" for kind in ("", "Grad")),
            ]
        ),
        {
            "TensorListGetItem": frozenset(["Tshape"]),
            **{
                name: frozenset(["use_shardy_partitioner"])
                for name in ("TPUReplicateMetadata", "XlaCallModule", "_TPUReplicate")
            },
            **{
                name: frozenset(["num_sparsecores_per_device"])
                for name in (*_BY_OPTIMIZER, f"{_SPARSE}WithStaticBufferSize")
            },
            **{f"{_SPARSE}{kind}WithCsrInput": frozenset(["T", "num_sparsecores_per_device"]) for kind in ("", "Grad")},
        },
        {
            "Range.Tidx": frozenset(["uint64"]),
            "UniformDequantize.Tin": frozenset(["quint8"]),
            "UniformQuantize.Tout": frozenset(["quint8"]),
        },
    ),
    "2.20": Lacking(
        frozenset(["DecodeJxl", "_CopyFromGpuToHost", "_CopyFromHostToGpu"]),
        {"TensorListGetItem": frozenset(["Tshape"])},
    ),
    "2.21": Lacking(),
}


def lacking_faults(saved_model: Path, version: ServingTensorFlow) -> list[str]:
    """List what a SavedModel uses and a release of TensorFlow lacks: a sentence each, without repetitions.

    Args:
        saved_model: the SavedModel's folder.
        version: the version of the serving TensorFlow.

    Raises:
        OSError: there is no SavedModel.
    """
    model = saved_model_pb2.SavedModel.FromString((saved_model / "saved_model.pb").read_bytes())
    lacking = LACKING[version]
    faults = (fault for node in _nodes(model) for fault in _faults(node, lacking))
    return [f"TensorFlow {version}, which serves (server.tensorflow), has no {fault}." for fault in sorted(set(faults))]


def _nodes(model: saved_model_pb2.SavedModel) -> Iterator[node_def_pb2.NodeDef]:
    for graph in (meta_graph.graph_def for meta_graph in model.meta_graphs):
        yield from graph.node
        for function in graph.library.function:
            yield from function.node_def


def _faults(node: node_def_pb2.NodeDef, lacking: Lacking) -> Iterator[str]:
    if node.op in lacking.operations:
        yield f"operation {node.op}"
    for name in lacking.attributes.get(node.op, frozenset()) & set(node.attr):
        yield f"attribute {name} of operation {node.op}"
    for name, value in node.attr.items():
        if tf.dtypes.as_dtype(value.type or tf.float32).name in lacking.types.get(f"{node.op}.{name}", frozenset()):
            yield f"{tf.dtypes.as_dtype(value.type).name} for attribute {name} of operation {node.op}"
