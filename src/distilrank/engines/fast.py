"""A reranker that answers fast: without padding and, on a GPU where a batch is small, as the replay of a CUDA graph.

Batches are laid flat (`engines/flat.py`). On a GPU a small encoder is hundreds of kernels, and for one query with its
candidates launching them one by one takes longer than computing them: rows come in few sizes, and each size that comes a
second time is captured once. On a CPU rows are short, so that they stay in its caches. Weights are bfloat16 where the
hardware multiplies it, cast once and not in each forward as autocast does; the head stays fp32. On a GPU layers are
compiled. What comes out is compared with a padded forward once; where it differs, or anything of this is missing, padded
batches are used.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from distilrank.engines.batches import Encoded, fill, in_order, moved, padded_batch, pinned
from distilrank.engines.classifier import Reranker, encode_pairs, head_of, score_encoded
from distilrank.engines.flat import Size, can_be_flat, can_compile, compile_layers, flat_batch, flatten
from distilrank.errors import first_line
from distilrank.progress import Advance, say

TOKENS_A_ROW = {"cpu": 512, "cuda": 8_192}
GRAPH_TOKENS = TOKENS_A_ROW["cuda"]
"""A row of more, which is one long pair, is launched kernel by kernel."""
MOST_GRAPHS = 64
FIRST_CHUNK, PAIRS_A_CHUNK = 128, 4_096
"""Tokenised at a time, while the device computes the chunk before: it waits for the first, which is small."""
SHORTEST = 64


class FastReranker(Reranker):
    """The scores of `Reranker`, sooner."""

    @cached_property
    def flat(self) -> Any:
        """The flat forward of the model, or none where there is none."""
        if self.windows is not None or not can_be_flat(self.model):
            return None
        found = FlatForward(self.model, self.dtype, self.tokenizer, self.max_length)
        if found.agrees():
            return found
        del self.model  # it was changed: what is loaded next computes padded batches
        return None

    def score_pairs(self, queries: Sequence[str], passages: Sequence[str], advance: Advance) -> np.ndarray:
        """Raw logits, float32 [pairs]."""
        if self.flat is None:
            return super().score_pairs(queries, passages, advance)
        launched = []
        for chunk in chunks(len(passages)):
            encoded = encode_pairs(self.tokenizer, queries[chunk], passages[chunk], self.max_length)
            launched.append(self.flat.launch(encoded, advance))
        return np.concatenate([fetch() for fetch in launched])  # here, and only here, a GPU is waited for

    def score_rows(self, encoded: Encoded) -> np.ndarray:
        """Raw logits, float32 [rows], of tokenised rows in any order."""
        if self.flat is None:
            return score_encoded(self.model, encoded, self.tokenizer.pad_token_id or 0, self.dtype)
        scores: np.ndarray = self.flat.launch(encoded)()
        return scores


def chunks(pairs: int) -> Iterator[slice]:
    """Slices of so many pairs, of which each is at most twice as long as the one before."""
    start, size = 0, FIRST_CHUNK if pairs > PAIRS_A_CHUNK else PAIRS_A_CHUNK
    while start < pairs:
        yield slice(start, start + size)
        start, size = start + size, min(2 * size, PAIRS_A_CHUNK)


def off_by(flat: Sequence[np.ndarray], padded: np.ndarray, exactly: Callable[[], np.ndarray]) -> float:
    """How far logits of flat rows are off; 0 where they are as good as those of padded batches in the same precision.

    What rounding alone moves depends on the model: where the two differ by more than is usual, both are held against
    float32, and flat rows may be twice as far from that as padded ones.
    """

    def worst(expected: np.ndarray) -> float:
        return float(np.max([np.abs(each - expected).max() for each in flat]))  # not a number, where one is not

    usual = 0.05 * max(1.0, float(np.abs(padded).max()))
    if worst(padded) <= usual:
        return 0.0
    exact = exactly()
    found = worst(exact)
    return 0.0 if found <= max(usual, 2 * float(np.abs(padded - exact).max())) else found


class FlatForward:
    """Flat rows through a model, graphs where they pay. The model is changed: its attention, and its weights' type."""

    def __init__(self, model: Any, dtype: str, tokenizer: Any, max_length: int) -> None:
        import torch

        self.tokenizer, self.longest = tokenizer, min(max_length, tokenizer.model_max_length)
        self.device = next(model.parameters()).device
        self.graphed = self.device.type == "cuda"
        self.model = flatten(model)
        if dtype == "bfloat16":
            head = head_of(model)
            exact = {name: value.clone() for name, value in head.state_dict().items()}
            model.to(torch.bfloat16)
            head.float().load_state_dict(exact)
        if self.graphed and can_compile():
            compile_layers(model, any_size=True)
        # One pool for all graphs: they are replayed one after another, and what one gives is copied before the next.
        self.pool = torch.cuda.graph_pool_handle() if self.graphed else None
        # One stream, too, or they would share no memory; of this device, since torch's own is of the first one used.
        self.aside = torch.cuda.Stream(self.device) if self.graphed else None
        self.graphs: dict[Size, Any] = {}
        self.seen: set[Size] = set()

    def launch(self, encoded: Encoded, advance: Advance = lambda done: None) -> Callable[[], np.ndarray]:
        """Start computing rows; what is returned waits for their raw logits, float32 [rows]."""
        import torch

        lengths = np.array([len(row) for row in encoded["input_ids"]])
        order = np.argsort(-lengths, kind="stable")  # of like length, since attention may be padded
        parts = []
        with torch.inference_mode():
            for places in in_order(lengths[order].tolist(), TOKENS_A_ROW[self.device.type]):
                rows = order[places]
                chosen = {key: [values[row] for row in rows.tolist()] for key, values in encoded.items()}
                parts.append(self._forward(chosen, lengths[rows]).clone())  # a graph's own would be overwritten
                advance(len(rows))

        def fetch() -> np.ndarray:
            result = np.empty(len(lengths), dtype=np.float32)
            if parts:
                result[order] = torch.cat(parts).cpu().numpy()
            return result

        return fetch

    def agrees(self) -> bool:
        """Whether a flat row, ordinary and as a graph, gives the logits of a padded batch; told if not."""
        import torch

        words = ["flat", "rows", "give", "what", "padded", "batches", "give"]
        texts = [" ".join(words[place % 7 :] * (1 + place % 5)) for place in range(24)]
        encoded = encode_pairs(self.tokenizer, texts[::-1], texts, self.longest)
        try:
            with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
                inputs = moved(padded_batch(encoded, self.tokenizer.pad_token_id or 0), self.device)
                padded = self.model(**inputs).logits[:, 0].float()
            expected = padded.cpu().numpy()
            flat = [self.launch(encoded)() for _ in range(3)]  # ordinary, captured, replayed
            worst = off_by(flat, expected, lambda: self._exactly(inputs))
        except RuntimeError as error:
            say(f"  flat rows do not run here ({first_line(error)}): batches are padded")
            return False
        if worst:
            say(f"  flat rows are off by {worst:.1g} here: batches are padded")
        return not worst

    def _exactly(self, inputs: Any) -> np.ndarray:
        """The logits of a padded batch, products in float32."""
        import torch

        with torch.inference_mode():
            logits: np.ndarray = copy.deepcopy(self.model).float()(**inputs).logits[:, 0].cpu().numpy()
        return logits

    def _forward(self, rows: Encoded, lengths: np.ndarray) -> Any:
        size = size_of(lengths, self.longest) if self.graphed else None
        if size is not None and (size in self.seen or size in self.graphs):
            if size not in self.graphs and len(self.graphs) < MOST_GRAPHS:
                self.graphs[size] = Graph(self.model, self._inputs(rows, size), self.pool, self.aside)
            if size in self.graphs:
                return self.graphs[size](self._inputs(rows, size))[: len(lengths)]
        elif size is not None:
            self.seen.add(size)
        return self.model(**moved(self._inputs(rows, None), self.device)).logits[:, 0].float()

    def _inputs(self, rows: Encoded, size: Size | None) -> dict[str, Any]:
        return flat_batch(rows["input_ids"], rows.get("token_type_ids"), self.model.config, size=size)


class Graph:
    """One forward of a fixed size, captured; called with inputs of that size, it gives float32 [pairs] on the device."""

    def __init__(self, model: Any, inputs: dict[str, Any], pool: Any, aside: Any) -> None:
        import torch

        device = aside.device
        self.inputs = moved(inputs, device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):  # what is set up on the first use must not be captured
            for _ in range(2):
                model(**self.inputs)
        torch.cuda.current_stream(device).wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool, stream=aside):
            self.logits = model(**self.inputs).logits[:, 0].float()

    def __call__(self, inputs: dict[str, Any]) -> Any:
        fill(self.inputs, pinned(inputs))
        self.graph.replay()
        return self.logits


def size_of(lengths: np.ndarray, longest: int) -> Size | None:
    """The smallest of the sizes that graphs are captured for which holds pairs of these lengths; none if they are too long.

    Tokens go up in steps of a quarter of a power of two, so that on average a tenth of a row is padding.
    """
    tokens, pairs, most = int(lengths.sum()), len(lengths), int(lengths.max())
    if tokens > GRAPH_TOKENS:
        return None
    step = max(SHORTEST, _power(tokens) // 8)
    return Size(-(-tokens // step) * step, max(8, _power(pairs)), min(max(SHORTEST, _power(most)), max(longest, most)))


def _power(number: int) -> int:
    """The smallest power of two that is not below the number."""
    return 1 << (number - 1).bit_length()
