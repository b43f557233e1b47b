"""Float8 products: row-wise, dynamic, with no calibration and no dependency.

A scale a token and a scale an output channel, both by the largest value (e4m3's largest is 448). It costs 4 to 6 times
bfloat16's error on a small real model, so whoever uses it checks a sample first (docs/performance.md).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from distilrank.errors import UserError

LARGEST = 448.0


def to_float8(model: Any, keep: int) -> None:
    """Replace the linear layers of a decoder by float8 ones, except in the first and the last `keep` layers; in place.

    Raises `UserError` on a GPU that has no float8 products (compute capability under 8.9).
    """
    import torch

    if model.device.type == "cuda" and torch.cuda.get_device_capability(model.device) < (8, 9):
        raise UserError("dtype float8: this GPU has no float8 products (it takes an Ada, Hopper or newer one): use bfloat16")
    layers = getattr(model.base_model, "layers", None)
    if layers is None or 2 * keep >= len(layers):
        has = "layers that are not where ours are looked for" if layers is None else f"{len(layers)} layers"
        raise UserError(f"dtype float8: {model.name_or_path} has {has}, of which keeping {keep} at each end leaves none")
    for layer in layers[keep : len(layers) - keep]:
        for module in list(layer.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, torch.nn.Linear):
                    setattr(module, name, _layer()(child))


@cache
def _layer() -> Any:
    """The class, made once: layers of different classes would each be compiled anew."""
    import torch

    class Float8Linear(torch.nn.Module):  # type: ignore[misc]
        """x W^T + b with both factors rounded to e4m3."""

        def __init__(self, linear: Any) -> None:
            super().__init__()
            weight, scale = _quantised(linear.weight)
            self.register_buffer("weight", weight)
            self.register_buffer("weight_scale", scale.t().contiguous())
            self.bias = linear.bias

        def forward(self, x: Any) -> Any:
            flat, scale = _quantised(x.reshape(-1, x.shape[-1]))
            if x.device.type == "cuda":
                out = torch._scaled_mm(
                    flat, self.weight.t(), scale_a=scale, scale_b=self.weight_scale, out_dtype=x.dtype, use_fast_accum=True
                )
            else:  # a CPU has no such product: the same rounding, multiplied in float32
                out = ((flat.float() * scale) @ (self.weight.float().t() * self.weight_scale)).to(x.dtype)
            out = out.view(*x.shape[:-1], -1)
            return out if self.bias is None else out + self.bias

    return Float8Linear


def _quantised(values: Any) -> tuple[Any, Any]:
    """Rows of a matrix as e4m3, and the float32 scale [rows, 1] of each."""
    import torch

    scale = values.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (values.float() / scale).to(torch.float8_e4m3fn), scale
