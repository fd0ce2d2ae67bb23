"""Writing a classifier's network as an ONNX graph, in float32 by torch and in int8 by ONNX Runtime's static quantisation."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import torch

from skinlesion.artifacts.patients import WIDTH
from skinlesion.base.errors import PipelineError, reason_of
from skinlesion.model.classifier import Classifier
from skinlesion.serving.export.onnx_network import IMAGES, LOGITS, METADATA, identity

OPSET = 20  # of 2023: what ONNX Runtime 1.17 and later run
LARGEST = 2_000_000_000  # bytes of weights; a graph in one file, which is a protocol buffer, ends at 2 GiB
TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir")  # loggers

# Layers with weights, and what lies between them and passes numbers on as they are, or cut off.
WITH_WEIGHTS: tuple[str, ...] = ("Conv", "Gemm", "MatMul")
QUANTIZED: tuple[str, ...] = (*WITH_WEIGHTS, "MaxPool", "Relu", "Clip")
EXAMPLES = 2  # images in the batch that is traced; 1 would be taken for a constant


def export_network(classifier: Classifier, path: Path, *, weights_sha256: str) -> None:
    """Write a network as `path`: inputs `images` and, where it needs it, `metadata`, output `logits`; any number of images.

    Normalisation is not part of the graph, nor the softmax. In evaluation mode torch's exporter folds batch norms into the
    convolutions before them.

    Raises
    ------
    PipelineError
        torch cannot export this network, or it is too large for one file.
    """
    model, config = classifier
    weights = sum(parameter.nbytes for parameter in model.parameters())
    if weights > LARGEST:
        raise PipelineError(
            f"classifier '{config.name}' ({config.backbone}) has {weights / 1e9:.1f} GB of weights, and an ONNX file holds 2: "
            "take a smaller train.backbone, or stay with the engine torch"
        )
    examples = [torch.zeros(EXAMPLES, 3, config.size, config.size)]
    if config.needs_metadata:
        examples.append(torch.zeros(EXAMPLES, WIDTH))
    names = [IMAGES, METADATA][: len(examples)]
    batch = tuple({0: torch.export.Dim.DYNAMIC} for _ in examples)
    try:
        with _quietly():
            program = torch.onnx.export(
                model.eval().cpu(),
                tuple(examples),
                input_names=names,
                output_names=[LOGITS],
                dynamic_shapes=batch,
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
            )
        assert program is not None  # it is None for the exporter before dynamo alone
        graph = without_traces(program.model_proto)
        onnx.checker.check_model(graph, full_check=True)
        check_batch(graph)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of the exporter, its decompositions and its optimiser: no closed list
        raise PipelineError(
            f"torch {torch.__version__} cannot export classifier '{config.name}' ({config.backbone}) to ONNX "
            f"({reason_of(error)}): take another train.backbone, or stay with the engine torch"
        ) from None
    onnx.helper.set_model_props(graph, identity(config.name, "float32", weights_sha256))
    onnx.save(graph, path)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep from the user what exporter and quantiser tell of their own insides; errors are raised."""
    levels = {name: logging.getLogger(name).level for name in TALKATIVE}
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def without_traces(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without what the exporter notes of each node: stack traces, which name this machine's folders."""
    for owner in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        del owner.metadata_props[:]
        owner.doc_string = ""
    for tensor in graph.graph.initializer:
        tensor.doc_string = ""
    return graph


def check_batch(graph: onnx.ModelProto) -> None:
    """Insist that the number of images is left open; a network that fixes it while it is traced could serve no other."""
    for value in (*graph.graph.input, *graph.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if not first.dim_param:
            raise ValueError(f"the number of images of '{value.name}' was fixed to {first.dim_value}")


def quantize_network(
    path: Path, target: Path, batches: Iterable[dict[str, np.ndarray]], *, name: str, float32_layers: int, weights_sha256: str
) -> None:
    """Write `target`, the graph `path` of member `name` with weights and activations of its layers in eight bits.

    Static quantisation with pairs of QuantizeLinear and DequantizeLinear (QDQ), unsigned activations and signed weights, whose
    scales are a channel's own: what ONNX Runtime recommends for x86 with VNNI
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

    Parameters
    ----------
    batches : inputs of the graph by name, from whose smallest and largest activations the scales follow.
    float32_layers : first layers with weights that stay in float32, >= 0; so does the last one, which gives the logits.

    Raises
    ------
    PipelineError
        ONNX Runtime cannot quantise this network, or nothing of it would be.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    try:
        with tempfile.TemporaryDirectory() as folder, _quietly():
            prepared = Path(folder) / "prepared.onnx"
            # Its symbolic inference of shapes knows older operators; torch's exporter has noted the shapes anyway.
            quant_pre_process(path, prepared, skip_symbolic_shape=True)
            graph = onnx.load(prepared)
            # In torch's order: the preparation may move a layer that is needed late, as that of the metadata, to the front.
            places = {layer: place for place, layer in enumerate(layers_with_weights(onnx.load(path)))}
            layers = sorted(layers_with_weights(graph), key=lambda layer: places.get(layer, len(places)))
            if float32_layers >= len(layers) - 1:
                raise PipelineError(
                    f"export.float32_layers is {float32_layers}, and with the last one as many of the {len(layers)} layers of "
                    f"classifier '{name}' would stay in float32 that none is left: lower it"
                )
            quantization.quantize_static(
                graph,
                target,
                SimpleNamespace(get_next=partial(next, iter(batches), None)),  # the next batch, None at the end
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=list(QUANTIZED),
                nodes_to_exclude=[*layers[:float32_layers], layers[-1]],
                calibrate_method=quantization.CalibrationMethod.MinMax,
                extra_options={"MatMulConstBOnly": True},  # products of two activations, as in attention, stay in float32
            )
        graph = without_traces(onnx.load(target))
        onnx.checker.check_model(graph)
        check_batch(graph)
    except (OSError, MemoryError, PipelineError):
        raise
    except Exception as error:  # see the exporter above
        raise PipelineError(
            f"ONNX Runtime cannot quantise classifier '{name}' ({reason_of(error)}): take another train.backbone, or stay with "
            "the engine torch"
        ) from None
    onnx.helper.set_model_props(graph, identity(name, "int8", weights_sha256))
    onnx.save(graph, target)


def layers_with_weights(graph: onnx.ModelProto) -> list[str]:
    """Names of the nodes that multiply by weights of the network, in the graph's order."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    return [node.name for node in graph.graph.node if node.op_type in WITH_WEIGHTS and weights & set(node.input)]
