"""Steps in a CUDA graph: the same training as the ordinary way, before and after a kill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distilrank.records import write_training_groups
from distilrank.students import learn, train
from distilrank.students.trainer import GroupTrainer
from students.test_train import SETTINGS, killed, same, taught, with_

pytestmark = pytest.mark.gpu
LOSSES = ["margin_mse", {"mse": 1.0, "kl": 0.5}, {"weighted_margin_mse": 1.0, "rank_net": 0.3, "adr_mse": 0.3}]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Some groups say which pairs count, and so every step holds a list of them.
    groups = [replace(group, pairs=((0, 1), (1, 3))) if group.query.endswith("0") else group for group in taught(200)]
    write_training_groups(path := tmp_path_factory.mktemp("training") / "groups.jsonl", groups)
    return path


def curve(folder: Path) -> np.ndarray:
    return np.array([entry["loss"] for entry in json.loads((folder / "distilrank.json").read_text())["loss"]])


@pytest.mark.parametrize("loss", LOSSES, ids=["margins", "levels", "orders"])
def test_a_graphs_steps_have_the_losses_of_ordinary_ones(
    loss: Any, data: Path, xlmr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = with_(SETTINGS, device="cuda", dropout=0.0, loss=loss, learning_rate=1e-3)
    graph = train(data, xlmr, tmp_path / "graph", settings)
    assert "CUDA graphs" in capfd.readouterr().err
    monkeypatch.setattr(learn, "_fixed_size", lambda *_: None)
    # By themselves ordinary steps are of the library's random batches, and so of other queries.
    monkeypatch.setattr(learn, "GroupTrainer", lambda **given: GroupTrainer(**given | {"alike": True}))
    ordinary = train(data, xlmr, tmp_path / "ordinary", settings)
    np.testing.assert_allclose(curve(tmp_path / "graph"), curve(tmp_path / "ordinary"), rtol=0.02)
    assert graph.agreement_after == pytest.approx(ordinary.agreement_after, abs=0.02)
    assert graph.agreement_after > graph.agreement_before


def test_a_killed_training_ends_in_the_model_of_one_that_was_not(
    data: Path, xlmr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_(SETTINGS, device="cuda", average=0.9)
    result = train(data, xlmr, tmp_path / "model", settings)
    arguments = (data, xlmr, tmp_path / "again", settings)
    killed(monkeypatch, "on_step_end", int(0.6 * result.steps), *arguments)
    resumed = train(*arguments)
    np.testing.assert_array_equal(curve(tmp_path / "model"), curve(tmp_path / "again"))
    assert resumed.agreement_after == result.agreement_after
    assert same(tmp_path / "model", tmp_path / "again")


def test_a_step_that_is_not_finite_is_skipped_in_a_graph(
    data: Path, xlmr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from students.test_train import broken

    broken(monkeypatch, "query 7")
    settings = with_(SETTINGS, device="cuda", validation=0.0, epochs=3)
    result = train(data, xlmr, tmp_path / "model", settings)
    assert result.skipped == 3
    assert "the group of the query 'query 7" in capfd.readouterr().err


def test_a_graph_that_does_not_fit_is_done_without(
    data: Path, xlmr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from distilrank.students.trainer import GroupLoss

    forward = GroupLoss.forward

    def full(self: Any, piece: Any, units: Any) -> Any:
        if torch.cuda.is_current_stream_capturing():
            raise torch.OutOfMemoryError
        return forward(self, piece, units)

    monkeypatch.setattr(GroupLoss, "forward", full)
    result = train(data, xlmr, tmp_path / "model", with_(SETTINGS, device="cuda"))
    assert capfd.readouterr().err.count("out of memory") == 1
    assert result.agreement_after > result.agreement_before


def test_a_graph_goes_where_memory_ends(
    data: Path, xlmr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from distilrank.students.trainer import GroupLoss

    forward = GroupLoss.forward

    def small(self: Any, piece: Any, units: Any) -> Any:
        if piece["inputs"]["input_ids"].numel() > 260:
            raise torch.OutOfMemoryError
        return forward(self, piece, units)

    monkeypatch.setattr(GroupLoss, "forward", small)
    result = train(data, xlmr, tmp_path / "model", with_(SETTINGS, device="cuda"))
    assert "out of memory" in capfd.readouterr().err
    assert result.agreement_after > result.agreement_before
