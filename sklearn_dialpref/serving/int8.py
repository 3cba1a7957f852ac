"""A float32 graph in int8, whose answers do not depend on what else is in the batch."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .onnx import open_session

DYNAMIC = "DynamicQuantizeLinear"
CONTRIBUTED = "com.microsoft"
LEVELS = 255  # of an unsigned byte, beside zero

Inputs = Mapping[str, NDArray[np.int64]]


def quantise(source: Path, file: Path, samples: Iterable[Inputs]) -> None:
    """Write a float32 graph as one with 8-bit weights and activations.

    ONNX Runtime's dynamic quantisation scales the activations by the range of the whole batch, so
    that an answer would change with its neighbours. Here each layer has one scale, of the range
    that the samples cover; beyond it activations saturate.

    Parameters
    ----------
    source, file : Path
        The float32 graph, and where to write the other. They may be the same.
    samples : iterable of dict of ndarray
        Inputs of the graph, each a single text.
    """
    import onnx

    with tempfile.TemporaryDirectory() as scratch:
        dynamic, observed = Path(scratch) / "dynamic.onnx", Path(scratch) / "observed.onnx"
        _quantise_weights(source, dynamic)
        model = onnx.load(dynamic)
        ranges = _activation_ranges(model.graph, onnx.load(dynamic), observed, samples)
    _fix_scales(model.graph, ranges)
    if all(entry.domain != CONTRIBUTED for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(CONTRIBUTED, 1))
    onnx.save(model, file)


def _quantise_weights(source: Path, file: Path) -> None:
    """All but the head's two layers, which are the last ones, and small."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    layers = [
        node.name
        for node in onnx.load(source, load_external_data=False).graph.node
        if node.op_type in ("Gemm", "MatMul")
    ]
    # the quantiser first makes a MatMul of a Gemm, of this name
    head = [name + suffix for name in layers[-2:] for suffix in ("", "_MatMul")]
    quantize_dynamic(
        source,
        file,
        weight_type=QuantType.QInt8,
        per_channel=True,
        nodes_to_exclude=head,
    )


def _activation_ranges(
    graph: Any, model: Any, file: Path, samples: Iterable[Inputs]
) -> dict[str, tuple[float, float]]:
    """By the name of each dynamic quantiser's output, the range of all samples."""
    from onnx import TensorProto, helper

    nodes = [node for node in graph.node if node.op_type == DYNAMIC]
    if not nodes:
        return {}
    kinds = (TensorProto.FLOAT, TensorProto.UINT8)
    for node in nodes:
        for name, kind in zip(node.output[1:], kinds, strict=True):
            model.graph.output.append(helper.make_tensor_value_info(name, kind, []))
    file.write_bytes(model.SerializeToString())
    session = open_session(file, threads=1)
    names = [name for node in nodes for name in node.output[1:]]
    # zero is in the range of each: a dynamic quantiser has it exactly
    low, high = np.zeros(len(nodes)), np.zeros(len(nodes))
    for inputs in samples:
        found = np.array(session.run(names, dict(inputs)), dtype=np.float64)
        scale, zero = found[::2], found[1::2]
        low, high = np.minimum(low, -zero * scale), np.maximum(high, (LEVELS - zero) * scale)
    bounds = zip(low.tolist(), high.tolist(), strict=True)
    return dict(zip([node.output[0] for node in nodes], bounds, strict=True))


def _fix_scales(graph: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Put a quantiser of fixed scale in the place of each dynamic one."""
    from onnx import helper, numpy_helper

    users, makers = defaultdict(list), {}
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
        makers.update(dict.fromkeys(node.output, node))
    biases = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 1}
    nodes = {id(node): node for node in graph.node}
    for node in graph.node:
        if node.op_type == DYNAMIC:
            low, high = ranges[node.output[0]]
            scale = (high - low) / LEVELS or 1.0
            zero = np.clip(np.round(-low / scale), 0, LEVELS)
            graph.initializer.extend(
                [
                    numpy_helper.from_array(np.array(scale, dtype=np.float32), node.output[1]),
                    numpy_helper.from_array(np.array(zero, dtype=np.uint8), node.output[2]),
                ]
            )
            nodes[id(node)] = helper.make_node(
                "QuantizeLinear", [node.input[0], *node.output[1:]], node.output[:1], node.name
            )
        elif node.op_type == "MatMulInteger":
            _fuse(node, users, makers, biases, nodes)
    kept = list(nodes.values())
    del graph.node[:]
    graph.node.extend(kept)


def _fuse(node: Any, users: Any, makers: Any, biases: set[str], nodes: dict[int, Any]) -> None:
    """One node for an integer product, its cast, its scaling and its bias.

    ONNX Runtime fuses them by itself only where the scale of the activations is no constant; in
    four nodes they take a sixth longer than the dynamic graph (MiniLM, 16 tokens).
    """
    from onnx import helper

    (cast,) = users[node.output[0]]
    (scaled,) = users[cast.output[0]]
    scales = makers[next(name for name in scaled.input if name != cast.output[0])]
    last, bias = scaled, []
    if len(users[scaled.output[0]]) == 1 and users[scaled.output[0]][0].op_type == "Add":
        add = users[scaled.output[0]][0]
        bias = [name for name in add.input if name in biases]
        last = add if bias else scaled
    for gone in (node, cast, scales, scaled):
        if gone is not last:
            nodes.pop(id(gone), None)
    activations, weights, zero, weights_zero = node.input
    inputs = [activations, weights, *scales.input, zero, weights_zero, *bias]
    nodes[id(last)] = helper.make_node(
        "MatMulIntegerToFloat", inputs, last.output, node.name, domain=CONTRIBUTED
    )
