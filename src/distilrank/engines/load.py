"""Loading a model folder: device, dtype, GGUF or safetensors, and a digest that says which weights they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distilrank.errors import UserError, first_line
from distilrank.shards import digest

DTYPES = ("auto", "float32", "bfloat16")
_WEIGHTS = (".safetensors", ".gguf")
_WHAT_DECIDES_A_SCORE = (*_WEIGHTS, ".py", ".json", ".txt", ".model", ".tiktoken", ".jinja")


def device_of(device: str = "auto") -> str:
    """`auto` is the first CUDA device where there is one, else the CPU; `mps`, Apple's GPU, only where it is asked for.

    Raises `UserError` on anything else.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()) or (kind != "cuda" and number):
        raise UserError(f"no device {device!r}: auto, cpu, cuda, cuda:N or mps")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("no device 'mps' here: torch sees no Metal GPU")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UserError(f"no device {device!r} here: {torch.cuda.device_count()} CUDA devices are seen")
    return device


def has_bfloat16(device: str) -> bool:
    """Whether bfloat16 products are computed by the hardware itself."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "mps":
        return False  # not tried: float32 is right everywhere
    # torch's own answer for the CPU is yes where bfloat16 is emulated, too.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def dtype_of(dtype: str, device: str) -> str:
    """`auto` is bfloat16 where the hardware multiplies it, else float32. Raises `UserError` on an unknown name."""
    if dtype not in DTYPES:
        raise UserError(f"no dtype {dtype!r}: {', '.join(DTYPES)}")
    return ("bfloat16" if has_bfloat16(device) else "float32") if dtype == "auto" else dtype


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder, out of its GGUF file where it is one."""
    from transformers import AutoTokenizer

    return _loaded(AutoTokenizer, folder, trust_remote_code=trust_remote_code, **_gguf(folder))


def load_model(
    kind: str,
    folder: Path,
    dtype: str,
    device: str,
    *,
    trust_remote_code: bool = False,
    fresh_head: bool = False,
    **more: Any,
) -> Any:
    """A transformers model in evaluation mode; `kind` names an auto class, like `AutoModelForCausalLM`.

    Weights come from safetensors or GGUF files only. Raises `UserError` when the folder holds no such model, or lacks some
    of its weights: transformers would make them up at random, and a lost head answers everything alike. With `fresh_head`
    a head may be missing, and is made up, the same one each time.
    """
    import torch
    import transformers

    weights: dict[str, Any] = _gguf(folder) or {"use_safetensors": True}
    more |= {"dtype": getattr(torch, dtype), "trust_remote_code": trust_remote_code, "output_loading_info": True}
    if fresh_head:
        torch.manual_seed(0)
    model, found = _loaded(getattr(transformers, kind), folder, **weights, **more)
    body = f"{model.base_model_prefix}."
    needed = (key for key in found["missing_keys"] if not fresh_head or (key.startswith(body) and ".pooler." not in key))
    if missing := sorted(needed):
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise UserError(f"{folder}: {missing[0]}{others} not among its weights: it is no whole {type(model).__name__}")
    try:
        return model.eval().to(device)
    except torch.cuda.OutOfMemoryError:
        raise UserError(
            f"{folder}: does not fit into the memory of {device}: a smaller model or dtype, or another device"
        ) from None


def has_head(folder: Path) -> bool:
    """Whether a folder says that it holds a sequence classifier, and not an encoder alone."""
    return any("SequenceClassification" in name for name in model_config(folder).get("architectures") or [])


def model_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a model folder. Raises `UserError` when there is none that can be read."""
    try:
        return dict(json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no config.json that can be read: {error}") from None


def _loaded(auto_class: Any, folder: Path, **options: Any) -> Any:
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such model folder")
    from safetensors import SafetensorError

    from distilrank.engines.quiet import quiet_transformers

    try:
        with quiet_transformers():
            return auto_class.from_pretrained(str(folder), local_files_only=True, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: not a model that transformers opens: {first_line(error)}") from error


def _gguf(folder: Path) -> dict[str, Any]:
    found = sorted(Path(folder).glob("*.gguf"))
    if len(found) > 1:
        raise UserError(f"{folder}: {len(found)} GGUF files; keep the one to use")
    return {"gguf_file": found[0].name} if found else {}


def weights_digest(folder: Path) -> str:
    """A digest of every file of the folder that decides a score: weights, configuration, tokenizer.

    Raises `UserError` when there are no weights in a format without code (safetensors, GGUF).
    """
    if not any(file.suffix in _WEIGHTS for file in Path(folder).rglob("*")):
        raise UserError(f"{folder}: no .safetensors and no .gguf file in it (pickled weights are not read)")
    for pickled in Path(folder).glob("[0-9]*_*/pytorch_model.bin"):
        if not (pickled.parent / "model.safetensors").exists():
            raise UserError(f"{pickled}: pickled weights are not read: save the module as safetensors")
    return digest(folder, _WHAT_DECIDES_A_SCORE)
