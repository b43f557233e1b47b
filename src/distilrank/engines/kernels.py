"""Attention over a flat row, registered with transformers by name: each pair attends to itself alone.

`flat` is a dict of `bounds` (int32 [pairs + 1], where each pair begins and the last ends), `places` (long [tokens], where
each token lies in a padded [pairs x longest] grid) and `longest`. On CUDA it is done without padding: short pairs by our own
kernel (`engines/short.py`), others by torch's variable-length kernels, private as they are
(`torch.ops.aten._efficient_attention_forward`, `_flash_attention_forward`): the one file that calls them is this one. Where
they are missing or disagree with the plain way, the plain way is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from distilrank.errors import first_line
from distilrank.progress import say

FLAT = "flat"
NAME = "distilrank-flat"
SHORT, SHORT_WITH_DROPOUT = 32, 64
"""Tokens of the average pair, up to which our own kernel is the fastest one."""
BOUNDS, LONGEST = (0, 5, 70, 71, 100), 65
"""Of the pairs that the kernels are tried on."""


def use_flat_attention(model: Any) -> None:
    """Switch a transformers encoder to it; such a model takes padded batches, too."""
    import torch
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    # Not traced by the compiler: torch 2.11 cannot trace the kernel's backward.
    AttentionInterface.register(NAME, torch.compiler.disable(_attention))
    # Without a mask function of the same name, padding would be attended to.
    AttentionMaskInterface.register(NAME, _mask)
    model.set_attn_implementation(NAME)
    if torch.cuda.is_available():
        # Here, where no autocast is on and nothing is being captured.
        _short_agrees()
        _kernel_agrees()
        _flash_drops_alike()


def _mask(*args: Any, attention_mask: Any = None, **more: Any) -> Any:
    """A padded batch's mask; none for a flat batch, whose mask would be the square of its tokens."""
    from transformers.masking_utils import eager_mask

    return None if attention_mask is None else eager_mask(*args, attention_mask=attention_mask, **more)


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    flat: dict[str, Any] | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """[1, heads, tokens, width] each -> [1, tokens, heads, width]; a window of w lets a token see w - 1 others each way."""
    import torch

    if flat is None:
        return _padded(module, query, key, value, mask, scaling, dropout)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    half = query.dtype in (torch.bfloat16, torch.float16)
    if query.device.type == "cuda" and sliding_window is None:
        if half and _is_short(query, flat["bounds"], dropout) and _short_agrees():
            return _short(query, key, value, flat["bounds"], flat["longest"], scaling, dropout), None
        if not dropout and _kernel_agrees():
            return _efficient(query, key, value, flat["bounds"], flat["longest"], scaling), None
        if dropout and half and _flash_drops_alike():
            return _flash(query, key, value, flat["bounds"], flat["longest"], scaling, dropout), None
    return _gridded(module, query, key, value, flat, scaling, dropout, sliding_window), None


def _padded(
    module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float | None, dropout: float
) -> tuple[Any, None]:
    """Attention of a padded batch: transformers' SDPA on a GPU, two matrix products on a CPU."""
    if query.device.type != "cpu":
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out, _ = sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling)
        return out, None
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _products(module, query * scaling, key, value, mask, dropout).transpose(1, 2).contiguous(), None


def _products(module: Any, query: Any, key: Any, value: Any, mask: Any, dropout: float) -> Any:
    """softmax(q k^T + mask) v, as two matrix products: on a CPU, training with it is faster than with SDPA.

    Measured on 2 cores with AMX in bfloat16 autocast, 33M-parameter BERT, 100 tokens a pair: 38 pairs/s in training against
    21 with SDPA and 26 with transformers' eager attention (docs/log.md).
    """
    import torch

    weights = torch.matmul(query, key.transpose(2, 3))
    if mask is not None:
        weights = weights + mask.to(weights.dtype)
    # The type is named, since autocast would go to float32 here and back again.
    weights = torch.softmax(weights, dim=-1, dtype=weights.dtype)
    weights = torch.nn.functional.dropout(weights, dropout, module.training)
    return torch.matmul(weights.to(value.dtype), value)


def _is_short(query: Any, bounds: Any, dropout: float) -> bool:
    most = (SHORT_WITH_DROPOUT if dropout else SHORT) * (len(bounds) - 1)
    return query.shape[3] in (16, 32, 64, 128) and query.shape[2] <= most


def _short(query: Any, key: Any, value: Any, bounds: Any, longest: int, scaling: float, dropout: float = 0.0) -> Any:
    """Our own kernel: tiles of 32, half precision, dropout."""
    from distilrank.engines.short import attend

    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    return attend(query, key, value, bounds, longest, scaling, dropout)[None]


def _efficient(query: Any, key: Any, value: Any, bounds: Any, longest: int, scaling: float, dropout: float = 0.0) -> Any:
    """The memory-efficient kernel: tiles of 64, any dtype; a pair longer than `longest` would not be computed.

    Not to be used with dropout: of sequences of several lengths its backward drops other weights than its forward did
    (torch 2.11), since the forward counts its random numbers as if there were no keys. Gradients are then noise.
    """
    import torch

    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    forward = torch.ops.aten._efficient_attention_forward
    return forward(query, key, value, None, bounds, bounds, longest, longest, dropout, 0, True, scale=scaling)[0]


def _flash(query: Any, key: Any, value: Any, bounds: Any, longest: int, scaling: float, dropout: float) -> Any:
    """FlashAttention: tiles of 128, half precision, dropout."""
    import torch

    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    forward = torch.ops.aten._flash_attention_forward
    return forward(query, key, value, bounds, bounds, longest, longest, dropout, False, False, scale=scaling)[0][None]


def _gridded(
    module: Any, query: Any, key: Any, value: Any, flat: dict[str, Any], scaling: float, dropout: float, window: int | None
) -> Any:
    """Padded inside attention alone."""
    import torch

    heads, width, longest = query.shape[1], query.shape[3], flat["longest"]
    pairs, places = len(flat["bounds"]) - 1, flat["places"]

    def grid(x: Any) -> Any:
        flat_rows = x[0].transpose(0, 1).reshape(-1, heads * width)
        padded = flat_rows.new_zeros(pairs * longest, heads * width).index_copy(0, places, flat_rows)
        return padded.view(pairs, longest, heads, width).transpose(1, 2)

    query, key, value = grid(query), grid(key), grid(value)
    place = torch.arange(longest, device=places.device)
    sees = place[None, None] < flat["bounds"].diff()[:, None, None]
    if window is not None:
        sees = sees & ((place[:, None] - place[None]).abs() < window)
    mask = torch.zeros_like(sees, dtype=query.dtype).masked_fill(~sees, torch.finfo(query.dtype).min)[:, None]
    mixed = _products(module, query * scaling, key, value, mask, dropout)
    return mixed.transpose(1, 2).reshape(pairs * longest, heads * width)[places].view(1, -1, heads, width)


@cache
def _short_agrees() -> bool:
    """Whether our own kernel runs here and does what the plain way does, and drops alike both ways; told once if not."""
    errors = partial(kernel_error, _short), partial(dropout_error, _short)
    limits = zip(errors, (1e-2, 0.05), strict=True)
    return all(_right("attention of short pairs", "torch's is used", error, most) for error, most in limits)


@cache
def _kernel_agrees() -> bool:
    """Whether torch's private kernel is there and does, forward and backward, what the plain way does; told once if not."""
    # TF32 may be on.
    return _right("torch's variable-length attention", "attention is padded", partial(kernel_error, _efficient), 1e-2)


@cache
def _flash_drops_alike() -> bool:
    """Whether FlashAttention is there and its backward drops what its forward dropped; told once if not."""
    return _right("FlashAttention with dropout", "attention with dropout is padded", partial(dropout_error, _flash), 0.05)


def _right(kernel: str, otherwise: str, error: Callable[[], float], most: float) -> bool:
    try:
        found = error()
    except Exception as problem:  # Triton's compiler and C compiler raise what they like
        say(f"  {kernel} does not run here ({first_line(problem)}): {otherwise}")
        return False
    if found > most:
        say(f"  {kernel} is off by {found:.1g} here: {otherwise}")
    return found <= most


def _random_rows(count: int, dtype: Any, device: str = "cuda") -> Iterator[Any]:
    """Tensors [1, heads, tokens, width] to try a kernel on; their pairs are those of `BOUNDS`."""
    import torch

    generator = torch.Generator(device).manual_seed(0)
    return (torch.randn(1, 4, BOUNDS[-1], 32, device=device, generator=generator).to(dtype) for _ in range(count))


def kernel_error(kernel: Callable[..., Any]) -> float:
    """How far a kernel without dropout is from the plain way, forward and backward, as a share."""
    import torch

    bounds = torch.tensor(BOUNDS, dtype=torch.int32, device="cuda")
    places = torch.cat([torch.arange(n, device="cuda") + i * LONGEST for i, n in enumerate(bounds.diff().tolist())])
    flat = {"bounds": bounds, "places": places, "longest": LONGEST}

    def results(way: Callable[..., Any]) -> list[Any]:
        parts = [part.requires_grad_() for part in _random_rows(3, torch.float32)]
        with torch.enable_grad(), torch.autocast("cuda", enabled=False):
            out = way(*parts)
            out.square().sum().backward()
        return [out.detach(), *(part.grad for part in parts)]

    plain = results(lambda q, k, v: _gridded(torch.nn.Identity(), q, k, v, flat, 0.2, 0.0, None))
    found = results(lambda q, k, v: kernel(q, k, v, bounds, LONGEST, 0.2))
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, plain, strict=True))


def dropout_error(kernel: Callable[..., Any], device: str = "cuda") -> float:
    """How far a kernel's gradient with dropout is off, as a share.

    Attention is linear in the values, so the gradient times the values is the result itself, if the same weights were
    dropped on the way back.
    """
    import torch

    bounds = torch.tensor(BOUNDS, dtype=torch.int32, device=device)
    query, key, value, weight = _random_rows(4, torch.bfloat16, device)
    value.requires_grad_()
    with torch.enable_grad(), torch.autocast(device, enabled=False):
        result = (kernel(query, key, value, bounds, LONGEST, 0.2, 0.5) * weight.transpose(1, 2)).float()
        result.sum().backward()
    by_head = result.detach().sum((0, 1, 3))
    found = (value.grad.float() * value.detach().float()).sum((0, 2, 3))
    return float((found - by_head).abs().max() / by_head.abs().max())
