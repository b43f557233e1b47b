"""Attention within short pairs of a flat row, dropout included, in Triton: a program computes one head of one pair.

Torch's variable-length kernels work in tiles of 64 or 128 tokens, of which a pair of 27 fills a fifth, and the one with the
smaller tiles is wrong with dropout (`engines/kernels.py`). Here tiles are of 32. The way is that of FlashAttention-2 (Dao,
2023): the way back computes weights again from their kept sums, and draws again what is dropped, from a counter (Philox).
"""

# Types of a kernel's arguments are Triton's to find.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

TILE = 32


@triton.jit
def _dropped(seed, query_place, key_place, longest, rate, TILE: tl.constexpr):
    """What weights are multiplied by, [TILE, TILE]: 0, or what makes up for it.

    A counter gives four numbers at once. No two are the same: a query is counted within the whole row, and a pair has no
    more than `longest` keys, a multiple of TILE.
    """
    rows = (query_place + tl.arange(0, TILE))[:, None] * (longest // 4)
    numbers = rows + key_place // 4 + tl.arange(0, TILE // 4)[None, :]
    a, b, c, d = tl.rand4x(seed, numbers)
    drawn = tl.reshape(tl.join(tl.join(a, b), tl.join(c, d)), [TILE, TILE])
    return tl.where(drawn < rate, 0.0, 1.0 / (1.0 - rate))


@triton.jit
def _rows(base, start, place, count, stride, TILE: tl.constexpr, WIDTH: tl.constexpr):
    """Where a tile's tokens lie, [TILE, WIDTH], and which of them belong to the pair, [TILE, 1]."""
    places = place + tl.arange(0, TILE)[:, None]
    at = (start + places).to(tl.int64) * stride + tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)[None, :]
    return base + at, places < count


@triton.jit
def _read(base, start, place, count, stride, TILE: tl.constexpr, WIDTH: tl.constexpr):
    at, inside = _rows(base, start, place, count, stride, TILE, WIDTH)
    return tl.load(at, inside, 0.0)


@triton.jit
def _write(base, values, start, place, count, stride, TILE: tl.constexpr, WIDTH: tl.constexpr):
    at, inside = _rows(base, start, place, count, stride, TILE, WIDTH)
    tl.store(at, values.to(base.dtype.element_ty), inside)


@triton.jit
def _attend_forward(
    query, key, value, out, log_sums, bounds, seed, rate, scale, tokens, longest,
    TILE: tl.constexpr, WIDTH: tl.constexpr, DROPS: tl.constexpr,
):  # fmt: skip
    pair, head, stride = tl.program_id(0), tl.program_id(1), tl.num_programs(1) * WIDTH
    start, own_seed = tl.load(bounds + pair), tl.load(seed) + head
    count = tl.load(bounds + pair + 1) - start
    for i in range(0, count, TILE):
        queries = _read(query, start, i, count, stride, TILE, WIDTH)
        largest = tl.full([TILE], float("-inf"), tl.float32)
        total, mixed = tl.zeros([TILE], tl.float32), tl.zeros([TILE, WIDTH], tl.float32)
        for j in range(0, count, TILE):
            scores = tl.dot(queries, tl.trans(_read(key, start, j, count, stride, TILE, WIDTH))) * scale
            scores = tl.where((j + tl.arange(0, TILE) < count)[None, :], scores, float("-inf"))
            larger = tl.maximum(largest, tl.max(scores, 1))
            weights, shrunk = tl.exp(scores - larger[:, None]), tl.exp(largest - larger)
            total, largest = total * shrunk + tl.sum(weights, 1), larger
            if DROPS:
                weights *= _dropped(own_seed, start + i, j, longest, rate, TILE)
            values = _read(value, start, j, count, stride, TILE, WIDTH)
            mixed = mixed * shrunk[:, None] + tl.dot(weights.to(values.dtype), values)
        _write(out, mixed / total[:, None], start, i, count, stride, TILE, WIDTH)
        places = i + tl.arange(0, TILE)
        tl.store(log_sums + head * tokens + start + places, largest + tl.log(total), places < count)


@triton.jit
def _tile(
    query, key, value, out, slope, log_sums, start, i, j, count, stride, seed, rate, scale, tokens, longest,
    TILE: tl.constexpr, WIDTH: tl.constexpr, DROPS: tl.constexpr,
):  # fmt: skip
    """Of a tile of weights: its queries, keys, the slopes of what came out, weights as used, and slopes by its scores."""
    queries = _read(query, start, i, count, stride, TILE, WIDTH)
    slopes = _read(slope, start, i, count, stride, TILE, WIDTH)
    outs = _read(out, start, i, count, stride, TILE, WIDTH)
    drag = tl.sum(slopes.to(tl.float32) * outs.to(tl.float32), 1)
    keys = _read(key, start, j, count, stride, TILE, WIDTH)
    values = _read(value, start, j, count, stride, TILE, WIDTH)
    places = i + tl.arange(0, TILE)
    log_sum = tl.load(log_sums + tl.program_id(1) * tokens + start + places, places < count, 0.0)
    used = tl.exp(tl.dot(queries, tl.trans(keys)) * scale - log_sum[:, None])
    used = tl.where((j + tl.arange(0, TILE) < count)[None, :], used, 0.0)
    by_score, by_weight = -used * drag[:, None], tl.dot(slopes, tl.trans(values))
    if DROPS:
        used *= _dropped(seed, start + i, j, longest, rate, TILE)
    by_score += used * by_weight
    return queries, keys, slopes, used.to(queries.dtype), (by_score * scale).to(queries.dtype)


@triton.jit
def _attend_backward(
    query, key, value, out, slope, by_query, by_key, by_value, log_sums, bounds, seed, rate, scale, tokens, longest,
    TILE: tl.constexpr, WIDTH: tl.constexpr, DROPS: tl.constexpr,
):  # fmt: skip
    pair, stride = tl.program_id(0), tl.num_programs(1) * WIDTH
    start, own_seed = tl.load(bounds + pair), tl.load(seed) + tl.program_id(1)
    count = tl.load(bounds + pair + 1) - start
    for j in range(0, count, TILE):
        of_keys, of_values = tl.zeros([TILE, WIDTH], tl.float32), tl.zeros([TILE, WIDTH], tl.float32)
        for i in range(0, count, TILE):
            queries, keys, slopes, used, by_score = _tile(
                query, key, value, out, slope, log_sums, start, i, j, count, stride, own_seed, rate, scale, tokens, longest,
                TILE, WIDTH, DROPS,
            )  # fmt: skip
            of_keys += tl.dot(tl.trans(by_score), queries)
            of_values += tl.dot(tl.trans(used), slopes)
            if count <= TILE:
                _write(by_query, tl.dot(by_score, keys), start, i, count, stride, TILE, WIDTH)
        _write(by_key, of_keys, start, j, count, stride, TILE, WIDTH)
        _write(by_value, of_values, start, j, count, stride, TILE, WIDTH)
    if count > TILE:  # once more the other way round, since a query's slopes are sums over keys
        for i in range(0, count, TILE):
            of_queries = tl.zeros([TILE, WIDTH], tl.float32)
            for j in range(0, count, TILE):
                queries, keys, slopes, used, by_score = _tile(
                    query, key, value, out, slope, log_sums, start, i, j, count, stride, own_seed, rate, scale, tokens,
                    longest, TILE, WIDTH, DROPS,
                )  # fmt: skip
                of_queries += tl.dot(by_score, keys)
            _write(by_query, of_queries, start, i, count, stride, TILE, WIDTH)


class _Short(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, bounds: Any, longest: int, scale: float, dropout: float) -> Any:
        tokens, heads, width = query.shape
        seed = torch.randint(2**31, (1,), device=query.device) if dropout else bounds[:1]  # of no use without
        log_sums = torch.empty(heads, tokens, device=query.device)
        out = torch.empty_like(query)
        ctx.rest = dropout, scale, tokens, -(-longest // TILE) * TILE
        ctx.settings = {"TILE": TILE, "WIDTH": width, "DROPS": dropout > 0}
        ctx.save_for_backward(query, key, value, out, log_sums, bounds, seed)
        grid = len(bounds) - 1, heads
        with torch.cuda.device_of(query):  # Triton takes the current one
            _attend_forward[grid](query, key, value, out, log_sums, bounds, seed, *ctx.rest, **ctx.settings, num_warps=1)
        return out

    @staticmethod
    def backward(ctx: Any, slope: Any) -> Any:
        *tensors, log_sums, bounds, seed = ctx.saved_tensors
        slopes = [torch.empty_like(tensors[0]) for _ in range(3)]
        given = *tensors, slope.contiguous(), *slopes, log_sums, bounds, seed, *ctx.rest
        with torch.cuda.device_of(slope):
            _attend_backward[len(bounds) - 1, slope.shape[1]](*given, **ctx.settings, num_warps=2)
        return *slopes, None, None, None, None


def attend(query: Any, key: Any, value: Any, bounds: Any, longest: int, scale: float, dropout: float) -> Any:
    """softmax(scale q k^T) v within each pair: [tokens, heads, width] each on a GPU, width a power of two, and so is the
    result; `bounds` and `longest` are those of `engines/kernels.py`, and every token is in some pair.
    """
    return _Short.apply(*(x.contiguous() for x in (query, key, value)), bounds, longest, scale, dropout)
