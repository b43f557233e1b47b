"""Every arm that was tried: what it changes against the base. An arm's training forwards a fixed number of tokens.

An arm that names no deviation is trained at `calibrate: auto`, which for a student that does not rank yet (*cut*, *fresh*)
was a deviation of 4 up to the third test, and is 1 since (docs/quality.md). So cells of *cut* in the results are made again
by the names with `calibrate 4`, those of *fresh* by the names as they are. "student's own scale" marks cells from before
both, whose arms are gone; "base, H200" is `base` once more, beside what else was run on that machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from distilrank.recipe import EPOCHS, MineSpec


@dataclass(frozen=True)
class Arm:
    """Settings of mining and of training, and what else an arm changes."""

    name: str
    mine: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    """budget (passes over all candidates), epochs (in place of a budget), depth (candidates a query), share (of the
    queries), easy (random passages of other queries added to each), deviation (that the teacher's scores are taken to
    before mining, for triplets, which cannot be calibrated), max_length, layer_decay, freeze, temperature (of KL)."""


BUDGET = 4.0
"""Passes over all candidates of the training queries whose tokens an arm may forward."""
MIXED: Any = {"margin_mse": 1, "kl": 1}
BASE_MINE: dict[str, Any] = {"strategy": "all_pairs"}
BASE_TRAIN: dict[str, Any] = {
    "mode": "groups",
    "loss": "margin_mse",
    "learning_rate": 1e-4,
    "queries_per_step": 8,
    "warmup": 0.1,
    "validation": 0.0,
    "evaluations": 1,
    "report_to": (),
}
TRIPLETS: dict[str, Any] = {"mode": "triplets", "calibrate": "none", "warmup": 0.05}
ADJACENT: dict[str, Any] = {"strategy": "adjacent", "top_k": 8, "num_negatives": 4}


def base(name: str = "base", mine: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **more: Any) -> Arm:
    """The base with changes."""
    return Arm(name, BASE_MINE | (mine or {}), BASE_TRAIN | (train or {}), more)


def reference(name: str, **train: Any) -> Arm:
    """The published mining, loss and row form."""
    settings = {key: value for key, value in BASE_TRAIN.items() if key not in ("loss", "queries_per_step")}
    return Arm(name, ADJACENT, settings | TRIPLETS | train)


PUBLISHED = Arm(
    "published",
    ADJACENT,
    reference("", batch_size=16, accumulation=32, learning_rate=2e-5).train,
    {"epochs": 1.0},
)


def within(arm: Arm, budget: float) -> Arm:
    """The arm with another budget, which its name then says."""
    return Arm(f"{arm.name}, budget {budget:g}", arm.mine, arm.train, arm.more | {"budget": budget})


def rates() -> list[Arm]:
    """Learning rate and batch of the base and of the published form, compute held equal."""
    ours = [
        base(f"lr {rate:g}, {queries} queries a step", train={"learning_rate": rate, "queries_per_step": queries})
        for rate in (1e-5, 2e-5, 5e-5, 1e-4, 2e-4)
        for queries in (4, 8, 16)
    ]
    return [*ours, *published_form((1e-5, 2e-5, 5e-5, 1e-4, 2e-4), (32, 64, 128)), PUBLISHED]


def drawn(
    strategy: str, passages: int, queries: int, rate: float, change: str = "", *, samples: int = 20, **train: Any
) -> Arm:
    """Training groups of few passages, drawn anew, so that a step has many queries; `change` names what else is changed."""
    return base(
        f"{strategy} {passages}, {queries} queries a step, lr {rate:g}{', ' * bool(change)}{change}",
        {"strategy": strategy, "passages": passages, "samples": samples},
        {"learning_rate": rate, "queries_per_step": queries} | train,
    )


def spread(rates: Sequence[float]) -> list[Arm]:
    """Few passages of many queries a step, against all passages of few; with and without dropout."""
    shapes = ((2, 32), (4, 16), (4, 32), (8, 8))
    few = [drawn("random", passages, queries, rate) for rate in rates for passages, queries in shapes]
    few += [drawn("quantile", 4, 16, rate) for rate in rates[:2]]
    calm = [drawn("random", 4, 16, rate, "dropout 0", dropout=0.0) for rate in rates]
    whole = [
        base(
            f"lr {rate:g}, 4 queries a step, dropout 0",
            train={"learning_rate": rate, "dropout": 0.0, "queries_per_step": 4},
        )
        for rate in rates[:2]
    ]
    return [*few, *calm, *whole]


def shapes(rates: Sequence[float]) -> list[Arm]:
    """Which passages share a step, and which margins count, each with the model's dropout and without."""
    found = []
    for rate in rates:
        for change, more in (("", {}), ("dropout 0", {"dropout": 0.0})):
            said = f"lr {rate:g}{', ' * bool(change)}{change}"
            settings = {"learning_rate": rate, "queries_per_step": 8} | more
            found += [
                *([] if more else [base(f"adjacent, 8 queries a step, {said}", ADJACENT, settings)]),
                base(f"adjacent, 16 queries a step, {said}", ADJACENT, settings | {"queries_per_step": 16}),
                base(f"all pairs, 8 queries a step, {said}", train=settings),
            ]
    return found


def top_heavy(rate: float) -> list[Arm]:
    """Losses that look at the top of the ranking, at one rate."""
    losses: list[Any] = ["weighted_margin_mse", "kl", "rank_net", "adr_mse", MIXED]
    return [
        base(
            f"loss {loss if isinstance(loss, str) else ' + '.join(loss)}, 8 queries a step, lr {rate:g}",
            train={"learning_rate": rate, "queries_per_step": 8, "loss": loss},
        )
        for loss in losses
    ]


def rescaled(rates: Sequence[float], *, mixed: bool = True) -> list[Arm]:
    """The shapes again, under other names: the first were run at the student's own scale where it did not rank yet."""
    found = []
    for rate in rates:
        said = f"lr {rate:g}, 8 queries a step"
        settings = {"learning_rate": rate, "queries_per_step": 8}
        found += [
            base(f"all pairs, {said}", train=settings),
            base(f"weighted, {said}", train=settings | {"loss": "weighted_margin_mse"}),
            base(f"adjacent, {said}", ADJACENT, settings),
            base(f"all pairs, {said}, dropout 0", train=settings | {"dropout": 0.0}),
        ]
        if mixed:
            found += [
                base(f"margin_mse + kl, {said}", train=settings | {"loss": MIXED}),
                base(f"adjacent, {said.replace('8', '16')}", ADJACENT, settings | {"queries_per_step": 16}),
            ]
    return found


def fewer(rates: Sequence[float]) -> list[Arm]:
    """Few passages of a query a step, so that the same tokens make more steps; averages of the weights."""
    found = []
    for rate in rates:
        shapes = (("random", 4, 16), ("random", 4, 8), ("quantile", 4, 16), ("random", 8, 8), ("quantile", 8, 8))
        found += [drawn(strategy, passages, queries, rate) for strategy, passages, queries in shapes]
        found += [
            drawn("quantile", 8, 8, rate, "weighted", loss="weighted_margin_mse"),
            drawn("random", 8, 8, rate, "average 0.99", average=0.99),
        ]
    return found


def published_form(rates: Sequence[float], batches: Sequence[int]) -> list[Arm]:
    """The published mining, loss and row form with another learning rate and batch."""
    return [
        reference(f"published form, lr {rate:g}, batch {batch}", learning_rate=rate, batch_size=batch)
        for rate in rates
        for batch in batches
    ]


def one_pass() -> list[Arm]:
    """What is tried where the budget is small (`--budget`): ours with few settings, the published form with more."""
    shapes = [(queries, rate) for rate in (1e-4, 2e-4) for queries in (2, 4, 8)]
    ours = [drawn("quantile", 8, queries, rate, "weighted", loss="weighted_margin_mse") for queries, rate in shapes]
    return [*ours, *published_form((1e-4, 2e-4, 4e-4), (8, 16, 32, 64)), *published_form_calibrated((2e-4,), (16, 64))]


def calibrated(arm: Arm, spread: float) -> Arm:
    """The arm with the teacher's scores at another deviation than the student's own."""
    return Arm(f"{arm.name}, calibrate {spread:g}", arm.mine, arm.train | {"calibrate": spread}, arm.more)


def scales() -> list[Arm]:
    """Deviations of the teacher's scores for a student that does not rank yet, where the budget is small."""
    groups = [arm for arm in (*one_pass(), *one_pass_more()) if arm.train["mode"] == "groups"]
    tried = drawn("quantile", 8, 4, 2e-4, "weighted", loss="weighted_margin_mse")
    return [*(calibrated(tried, spread) for spread in (0.5, 1.0, 2.0)), *(calibrated(arm, 4.0) for arm in groups)]


def one_pass_more() -> list[Arm]:
    """What might teach more where the budget is small: other passages, scales and losses, and no dropout."""
    certain: Any = {"loss": "weighted_margin_mse"}
    calm: Any = {"dropout": 0.0}
    adjacent = {"learning_rate": 2e-4, "queries_per_step": 4}
    return [
        drawn("quantile", 8, 4, 4e-4, "weighted", **certain),
        drawn("quantile", 8, 4, 2e-4, "weighted, dropout 0", **certain, **calm),
        base("adjacent, 4 queries a step, lr 0.0002", ADJACENT, adjacent),
        base("adjacent, 4 queries a step, lr 0.0002, dropout 0", ADJACENT, adjacent | calm),
        drawn("random", 4, 16, 2e-4),
        drawn("random", 4, 8, 2e-4, "dropout 0", **calm),
        drawn("quantile", 8, 4, 2e-4, "margin_mse + kl", loss=MIXED),
        reference("published form, lr 0.0002, batch 32, dropout 0", learning_rate=2e-4, batch_size=32, **calm),
    ]


def published_form_calibrated(rates: Sequence[float], batches: Sequence[int] = (64,)) -> list[Arm]:
    """The published form with the teacher's scores at a reranker's scale. The results have no cell of it: those that were
    run are among the discarded (docs/log.md)."""
    found = published_form(rates, batches)
    return [Arm(f"{arm.name}, calibrated", arm.mine, arm.train, arm.more | {"deviation": 4.0}) for arm in found]


def presets() -> list[Arm]:
    """The tool's own presets, with all of its defaults, and longer trainings on draws that take no account of the depth."""
    mine = MineSpec().model_dump(exclude={"format"})
    train: dict[str, Any] = {"mode": "groups", "report_to": ()}
    now = [Arm(f"preset {name}", mine, train, {"epochs": epochs}) for name, epochs in EPOCHS.items()]
    return [
        *now,
        *(Arm(f"4 draws, epochs {epochs:g}", mine | {"samples": 4}, train, {"epochs": epochs}) for epochs in (1, 2, 4)),
    ]


def one_factor() -> list[Arm]:
    """One change each."""
    drawn = [
        base(f"{strategy} {passages} x {samples}", {"strategy": strategy, "passages": passages, "samples": samples})
        for strategy in ("random", "quantile")
        for passages, samples in ((8, 1), (4, 1), (8, 4), (4, 8))
    ]
    losses: list[Any] = ["weighted_margin_mse", "mse", "kl", "rank_net", "adr_mse"]
    mixed: list[Any] = [{"margin_mse": 1, "kl": weight} for weight in (0.3, 1, 3)]
    mixed += [
        {"mse": 1, "kl": 1},
        {"margin_mse": 1, "rank_net": 1},
    ]
    return [
        base(),
        *drawn,
        base("adjacent, groups", ADJACENT),
        base("easy 4", easy=4),
        base("easy 8", easy=8),
        *(base(f"loss {loss}", train={"loss": loss}) for loss in losses),
        *(base(f"loss {' + '.join(f'{v:g} {k}' for k, v in loss.items())}", train={"loss": loss}) for loss in mixed),
        *(base(f"1 margin_mse + 1 kl at {value:g}", train={"loss": MIXED}, temperature=value) for value in (0.5, 2.0, 4.0)),
        *(base(f"calibrate {value}", train={"calibrate": value}) for value in ("none", 2.0, 4.0, 8.0)),
        *(base(f"layer decay {value}", layer_decay=value) for value in (0.8, 0.9)),
        base("frozen embeddings", freeze=True),
        *(base(f"average {value}", train={"average": value}) for value in (0.99, 0.999)),
        base("interpolate 0.8", train={"interpolate": 0.8}),
        base("interpolate 0.5", train={"interpolate": 0.5}),
        base("weight decay 0.01", train={"weight_decay": 0.01}),
        base("dropout 0", train={"dropout": 0.0}),
        base("warmup 0.3", train={"warmup": 0.3}),
        base("selection on 10 %", train={"validation": 0.1, "evaluations": 4}),
        *(base(f"budget {value:g}", budget=value) for value in (1, 2, 8, 16)),
        *(base(f"{share:.0%} of the queries, same budget", share=share) for share in (0.25, 0.5)),
        *(base(f"depth {depth}", depth=depth) for depth in (5, 10)),
        base("max_length 64", max_length=64),
    ]


def four_passes() -> list[Arm]:
    """What one pass and the first test had chosen, at the first test's budget."""
    chosen = [drawn("quantile", 8, 4, rate, "margin_mse + kl", loss=MIXED) for rate in (1e-4, 2e-4)]
    weighted = drawn("quantile", 8, 8, 1e-4, "weighted", loss="weighted_margin_mse")
    return [*chosen, weighted, *published_form((2e-4, 4e-4), (32, 64))]


PLANS: dict[str, list[Arm]] = {
    "rates": rates(),
    "spread-high": [*spread((1e-4, 2e-4, 4e-4)), *published_form((1e-4, 2e-4, 4e-4), (64, 128))],
    "spread-low": [*spread((2e-5, 5e-5, 1e-4)), *published_form((2e-5, 5e-5, 1e-4), (64, 128))],
    "shapes-high": [*shapes((2e-4,)), *top_heavy(2e-4), *shapes((1e-4, 4e-4))],
    "shapes-low": [*shapes((5e-5,)), *published_form((5e-5, 1e-4), (64,)), *top_heavy(5e-5), *shapes((2e-5, 1e-4))],
    "scale-high": [*rescaled((2e-4, 1e-4)), *rescaled((4e-4,), mixed=False)],
    "scale-low": [*published_form((5e-5, 1e-4, 2e-4), (64,)), *rescaled((1e-4,)), *rescaled((2e-4,), mixed=False)],
    "calibrated": published_form_calibrated((5e-5, 1e-4, 2e-4)),
    "fewer-high": fewer((2e-4, 4e-4)),
    "fewer-low": fewer((1e-4, 2e-4)),
    "one-factor": one_factor(),
    "presets": presets(),
    "four-passes": four_passes(),
    "one-pass": one_pass(),
    "one-pass-more": one_pass_more(),
    "scales": scales(),
    "scales-cut": [
        *(calibrated(arm, spread) for arm in fewer((1e-4,)) for spread in (1.0, 4.0)),
        *(calibrated(arm, 1.0) for arm in one_factor()),
    ],
}
PLANS["final"] = list({arm.name: arm for plan in PLANS.values() for arm in plan}.values())
"""What `run.py` is asked for."""
