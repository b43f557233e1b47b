"""A student as an ONNX file through torch's exporter, and with int8 weights through onnxruntime's quantiser."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distilrank.engines.load import load_model
from distilrank.engines.quiet import quiet_transformers
from distilrank.errors import UserError, first_line
from distilrank.students.export.scorers import Inputs

OPSET = 18
"""The lowest that torch's exporter writes without a conversion; onnxruntime reads it from 1.14 on."""
MOST_BYTES = 2 * 1024**3 - 64 * 1024**2
"""A protobuf file ends at 2 GiB: larger weights go to a second file."""
WEIGHTS = "_data"
"""What the second file's name adds to the first's, as transformers.js and fastembed ask for it."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def write_onnx(folder: Path, tokenizer: Any, file: Path) -> None:
    """Write `file` with inputs int64 [batch, sequence] under the tokenizer's names and the output `logits` [batch, 1].

    Raises `UserError` when onnxscript is not installed or torch cannot export the model.
    """
    import torch

    try:
        from onnxscript import ir
    except ModuleNotFoundError:
        raise UserError("exporting to ONNX needs onnxscript: pip install 'distilrank[export]'") from None

    # Attention in plain products: nothing that an older runtime does not know, and each runtime fuses them in its own way.
    model = load_model("AutoModelForSequenceClassification", folder, "float32", "cpu", attn_implementation="eager")
    names = [name for name in INPUTS if name in tokenizer.model_input_names]

    class Logits(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            return self.model(**dict(zip(names, inputs, strict=True))).logits

    # Two lengths above 1 that differ, so that neither axis is taken for the other or for a constant.
    sample = tuple(torch.ones(3, 11, dtype=torch.long) for _ in names)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    try:
        with quiet_transformers(), _quiet(), torch.inference_mode():
            program = torch.onnx.export(
                Logits(),
                sample,
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=(tuple(axes for _ in names),),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"{folder}: torch cannot export a {type(model).__name__} to ONNX: {first_line(error)}") from error
    assert program is not None
    size = sum(parameter.numel() * 4 for parameter in model.parameters())
    ir.save(program.model, file, external_data=f"{file.name}{WEIGHTS}" if size > MOST_BYTES else None)


def quantise_dynamic(source: Path, target: Path, *, everything: bool = False, bits: int = 7) -> None:
    """int8 weights in one file; the ranges of activations are taken from each batch at run time.

    The second product of each feed-forward part stays in float32 unless `everything` is asked for: its inputs, behind the
    activation function, are near 0 but for a few, and one range for all of a batch leaves them few steps. At 8 bits the
    weights are unsigned.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with prepared(source) as file, _quiet():
        quantize_dynamic(
            file,
            target,
            per_channel=True,
            reduce_range=bits < 8,
            weight_type=QuantType.QInt8 if bits < 8 else QuantType.QUInt8,
            nodes_to_exclude=_kept(file, narrowing=not everything),
        )


def quantise_static(source: Path, target: Path, calibration: Sequence[Inputs]) -> None:
    """int8 weights; the ranges of activations are fixed to those seen on some batches."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> Inputs | None:
            return next(self.left, None)

    with prepared(source) as file, _quiet():
        quantize_static(
            file,
            target,
            Reader(),
            quant_format=QuantFormat.QOperator,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_kept(file, narrowing=True),
            # Products of two activations, attention's, stay in float32, as they do in the dynamic form.
            extra_options={"MatMulConstBOnly": True},
        )


@contextmanager
def prepared(source: Path) -> Iterator[Path]:
    """The file with shapes inferred and constants folded, as the quantiser wants it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="distilrank-onnx-") as scratch, _quiet():
        file = Path(scratch) / "prepared.onnx"
        large = _is_large(source)
        quant_pre_process(source, file, skip_symbolic_shape=True, skip_optimization=large, save_as_external_data=large)
        yield file


def _is_large(source: Path) -> bool:
    return source.with_name(source.name + WEIGHTS).exists()


def _kept(file: Path, *, narrowing: bool) -> list[str]:
    """The nodes that stay in float32: the head, whose products are of one vector a pair and cost nothing, and, where
    `narrowing`, the products with weights that have fewer columns than rows: the second ones of the feed-forward parts.
    """
    import onnx

    graph = onnx.load(str(file), load_external_data=False).graph
    narrow = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2 and tensor.dims[0] > tensor.dims[1]}
    heads = [node.name for node in graph.node if node.op_type == "Gemm"]
    heads += [f"{name}_MatMul" for name in heads]  # as the dynamic quantiser, which takes them apart, calls them
    return heads + [node.name for node in graph.node if narrowing and node.op_type == "MatMul" and node.input[1] in narrow]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's and the quantiser's notes on their own progress."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
