"""Exporting a model folder: converted, compared with the original, and only then there under its name."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from distilrank.engines.load import has_head, load_model, load_tokenizer, model_config, weights_digest
from distilrank.errors import UserError
from distilrank.progress import bar, say
from distilrank.records import Group
from distilrank.shards import refuse_foreign, whole_folder, write_text
from distilrank.students.export.layout import MODEL, OPENVINO, QUANTISED, length_of, write_beside
from distilrank.students.export.onnx import WEIGHTS, quantise_dynamic, quantise_static, write_onnx
from distilrank.students.export.parity import Parity, compare
from distilrank.students.export.scorers import (
    Forward,
    batches,
    onnx_forward,
    openvino_forward,
    openvino_library,
    score,
    torch_forward,
)

RECORD = "export.json"
"""The file in an export that says what it was made from, how, and how near it is to it."""
FORMATS = ("safetensors", "onnx", "onnx-int8", "openvino")
DTYPES = ("float32", "bfloat16", "float16")
MAX_LOSS = 0.005
COPIED = (".json", ".txt", ".model", ".jinja", ".md")
"""Configuration, tokenizer and card."""
LIBRARIES = ("distilrank", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "openvino")


@dataclass(frozen=True)
class ExportSettings:
    """What is written: one of `FORMATS`; a precision, for safetensors; passages to calibrate on, for a static int8."""

    form: str = "onnx"
    dtype: str = "float32"
    calibrate: Sequence[Group] = ()
    max_loss: float = MAX_LOSS

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise UserError(f"--format {self.form}: {', '.join(FORMATS)}")
        if self.dtype not in DTYPES:
            raise UserError(f"--dtype {self.dtype}: {', '.join(DTYPES)}")
        if self.dtype != "float32" and self.form != "safetensors":
            raise UserError(f"--dtype {self.dtype}: only safetensors are written in another precision than float32")
        if self.calibrate and self.form != "onnx-int8":
            raise UserError("--calibrate: only onnx-int8 is calibrated")


def export(
    model: str | Path,
    output: str | Path,
    settings: ExportSettings,
    groups: Sequence[Group],
    name: str = "given groups",
) -> Parity:
    """Write the cross-encoder in folder `model` to folder `output` in another form, and compare both on `groups`.

    `name` says where the groups come from. The parity is stored in `export.json` beside the model. Raises `GateError` when
    more than `settings.max_loss` is lost, and leaves nothing then; `UserError` when the model cannot be exported.
    """
    model, output = Path(model), Path(output)
    refuse_foreign(output, RECORD)
    if not has_head(model) or len(model_config(model).get("id2label") or {0: ""}) != 1:
        raise UserError(f"{model}: not a cross-encoder with one output")
    digest, tokenizer = weights_digest(model), load_tokenizer(model)
    max_length = length_of(model, tokenizer)
    start = time.monotonic()

    def scores(title: str, forward: Forward) -> Any:
        with bar(title, sum(len(group.passages) for group in groups), "pairs") as advance:
            return score(groups, tokenizer, max_length, forward, advance)

    before = scores("original", torch_forward(model, "float32"))
    with whole_folder(output, ours=RECORD) as partial:
        say(f"  {settings.form}")
        forward = _write(model, partial, settings, tokenizer, max_length)
        parity = compare(name, groups, before, scores(settings.form, forward))
        say(f"  {parity.line()}")
        parity.demand(settings.max_loss)
        record = {
            "format": settings.form,
            "dtype": "int8" if settings.form == "onnx-int8" else settings.dtype,
            "max_length": max_length,
            "source": {"name": model.resolve().name, "digest": digest},
            "calibrated_on": len(settings.calibrate),
            "parity": asdict(parity) | {"loss": parity.loss, "max_loss": settings.max_loss},
            "seconds": round(time.monotonic() - start, 1),
            "versions": _versions(),
        }
        write_text(partial / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return parity


def _write(model: Path, output: Path, settings: ExportSettings, tokenizer: Any, max_length: int) -> Forward:
    """Write the model in its form with everything beside it; returns what scores with what was written."""
    if settings.form == "safetensors":
        return _write_safetensors(model, output, settings.dtype, max_length)
    file = output / MODEL
    file.parent.mkdir()
    write_onnx(model, tokenizer, file)
    if settings.form == "onnx-int8":
        if settings.calibrate:
            calibration = [inputs for _, inputs in batches(settings.calibrate, tokenizer, max_length)]
            quantise_static(file, output / QUANTISED, calibration)
        else:
            quantise_dynamic(file, output / QUANTISED)
        _forget(file)
        # One file under both names: transformers.js asks for the one, everything else for the other.
        _same(output / QUANTISED, file)
    if settings.form == "openvino":
        forward = _write_openvino(file, output / OPENVINO)
        _forget(file)
        file.parent.rmdir()
        write_beside(model, output, max_length)
        return forward
    external = file.with_name(file.name + WEIGHTS).exists()
    write_beside(model, output, max_length, **_javascript(file.name) if external else {})
    return onnx_forward(file)


def _write_safetensors(model: Path, output: Path, dtype: str, max_length: int) -> Forward:
    """A copy of the folder with weights in another precision, which transformers then computes in, too."""
    shutil.copytree(model, output, dirs_exist_ok=True, ignore=_not_copied)
    load_model("AutoModelForSequenceClassification", model, dtype, "cpu").save_pretrained(output)
    write_beside(model, output, max_length, dtype=dtype)
    return torch_forward(output, dtype)


def _not_copied(folder: str, names: list[str]) -> set[str]:
    """What is not of a model in safetensors: weights of all kinds, other forms, checkpoints, hidden files."""
    left = {RECORD, "onnx", "openvino"}
    for name in names:
        plain = name.endswith(COPIED) and not name.endswith(".index.json")
        if name.startswith((".", "checkpoint-")) or not (plain or name == "LICENSE" or Path(folder, name).is_dir()):
            left.add(name)
    return left


def _write_openvino(source: Path, file: Path) -> Forward:
    openvino = openvino_library()
    file.parent.mkdir()
    openvino.save_model(openvino.convert_model(str(source)), str(file), compress_to_fp16=False)
    return openvino_forward(file)


def _javascript(name: str) -> dict[str, Any]:
    """What tells transformers.js that the weights lie in a second file."""
    return {"transformers.js_config": {"use_external_data_format": {name: 1}}}


def _same(file: Path, name: Path) -> None:
    """Give a file a second name, or a copy where the file system knows no such thing."""
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)


def _forget(file: Path) -> None:
    file.unlink()
    file.with_name(file.name + WEIGHTS).unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
