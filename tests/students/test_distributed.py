"""Two processes train as one does: gradients, weights, guards, a kill; on the CPU, over gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from distilrank.errors import UserError
from distilrank.mining.triplets import triplets_of
from distilrank.records import write_training_groups, write_triplets
from distilrank.students.batches import BalancedBatches, Shares
from distilrank.students.ranks import ALONE, Ranks, _buckets, joined
from students import together
from students.test_train import taught, weights

HERE = Path(__file__).resolve().parent
TOGETHER = ("plain", "validated", "resumed", "triplets", "uneven", "broken", "short", "never")


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    paths = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="module")
def ran(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder of all trainings of two processes; what the killed ones said, and the others."""
    folder = tmp_path_factory.mktemp("together")
    write_training_groups(folder / "groups.jsonl", taught(61))
    paired = (replace(group, pairs=((0, 1), (1, 2), (2, 3))) for group in taught(61))
    write_triplets(folder / "triplets.jsonl", triplets_of(paired))
    done = python(HERE / "together.py", "--pairs", folder, bert, "killed", ",".join(TOGETHER))
    assert done.returncode == 0, done.stderr[-3000:]
    dead, whole, _ = done.stderr.split("==== together: ")
    ends = [json.loads((folder / f"ends-{number}.json").read_text()) for number in (0, 1)]
    assert ends == [[0, -signal.SIGKILL], [0, 0]], whole[-3000:]
    return folder, dead, whole


def results(ran: Any, name: str) -> list[dict[str, Any]]:
    """What each process made of a training, but for its time."""
    found = [json.loads((ran[0] / f"{name}.{rank}.json").read_text()) for rank in (0, 1)]
    return [{key: value for key, value in result.items() if key != "seconds"} for result in found]


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in json.loads((folder / "distilrank.json").read_text())["loss"]]


def close(a: Path, b: Path) -> None:
    """Equal weights, but where the gradient is nothing but rounding, which Adam makes whole steps of: softmax does not see a
    key's bias, nor margins the head's.
    """
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    for name in one:
        if not name.endswith(("key.bias", "classifier.bias")):
            torch.testing.assert_close(
                one[name], other[name], rtol=0, atol=1e-5, msg=lambda told, name=name: f"{name}: {told}"
            )


@pytest.fixture(scope="module")
def alone(bert: Path, ran: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training in one process."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "groups.jsonl").write_bytes((ran[0] / "groups.jsonl").read_bytes())
    assert together.plain(folder, bert, "plain").steps == 20
    return folder


def test_gradients_are_those_of_one_process(ran: Any, alone: Path) -> None:
    expected = load_file(alone / "plain.gradients.0.safetensors")
    for rank in (0, 1):
        found = load_file(ran[0] / f"plain.gradients.{rank}.safetensors")
        assert found.keys() == expected.keys()
        largest = max(float(value.abs().max()) for value in expected.values())
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6 * largest)


def test_weights_after_20_steps_are_those_of_one_process(ran: Any, alone: Path) -> None:
    assert [result["steps"] for result in results(ran, "plain")] == [20, 20]
    close(ran[0] / "plain", alone / "plain")
    assert losses(ran[0] / "plain") == pytest.approx(losses(alone / "plain"), rel=1e-5)


def test_processes_may_have_other_numbers_of_pieces(ran: Any, alone: Path) -> None:
    close(ran[0] / "uneven", alone / "plain")


def test_all_processes_know_the_same_agreement(ran: Any) -> None:
    first, second = results(ran, "validated")
    assert first == second
    assert first["agreement_after"] > first["agreement_before"]
    record = json.loads((ran[0] / "validated/distilrank.json").read_text())
    assert first["agreement_after"] == pytest.approx(max(entry["agreement"] for entry in record["agreement"]))


def test_a_process_that_was_killed_costs_the_steps_since_the_last_checkpoint(ran: Any) -> None:
    folder, _, later = ran
    assert "another process of the training has ended" in json.loads((folder / "killed.0.json").read_text())["error"]
    assert results(ran, "resumed") == results(ran, "validated")
    one, other = weights(folder / "resumed"), weights(folder / "validated")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (later.count("step 7 of 26"), later.count("step 26 of 26")) == (1, 2)  # it went on from a checkpoint


def test_a_gradient_that_is_not_finite_on_one_process_skips_the_step_on_all(ran: Any) -> None:
    first, second = results(ran, "broken")
    assert first == second
    assert first["skipped"] == 4
    assert "not finite: the group of the query 'query 7" in ran[2]
    assert all(torch.isfinite(tensor).all() for tensor in weights(ran[0] / "broken").values())


def test_out_of_memory_on_one_process_makes_smaller_pieces_on_all(ran: Any, alone: Path) -> None:
    close(ran[0] / "short-150", alone / "plain")
    assert ran[2].count("out of memory: steps are now computed in pieces of") >= 1
    first, second = results(ran, "never")
    assert first == second
    assert "out of memory with the 4 passages of a single query" in first["error"]


def test_triplets_go_the_librarys_way(ran: Any) -> None:
    first, second = results(ran, "triplets")
    assert first["steps"] == second["steps"] > 0
    assert (ran[0] / "triplets/model.safetensors").exists()


@pytest.mark.slow
def test_torchrun_starts_them_and_ends_the_one_whose_fellow_was_killed(bert: Path, alone: Path, tmp_path: Path) -> None:
    (tmp_path / "groups.jsonl").write_bytes((alone / "groups.jsonl").read_bytes())
    dead = python(*TORCHRUN, HERE / "together.py", tmp_path, bert, "killed")
    assert dead.returncode
    assert any(word in dead.stderr for word in ("another process of the training has ended", "SIGKILL", "Signal 9"))
    whole = python(*TORCHRUN, HERE / "together.py", tmp_path, bert, "plain", "resumed")
    assert whole.returncode == 0, whole.stderr[-3000:]
    close(tmp_path / "plain", alone / "plain")
    assert whole.stderr.count("step 7 of 26") == 0  # it went on from a checkpoint


@pytest.mark.slow
def test_a_single_process_of_torchrun_trains_as_without_it(bert: Path, alone: Path, tmp_path: Path) -> None:
    (tmp_path / "groups.jsonl").write_bytes((alone / "groups.jsonl").read_bytes())
    done = python(*TORCHRUN[:-1], "1", HERE / "together.py", tmp_path, bert, "plain")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "DistributedDataParallel" not in done.stderr
    close(tmp_path / "plain", alone / "plain")


def test_only_the_first_process_speaks_and_writes(ran: Any) -> None:
    told = [line for line in ran[2].splitlines() if line.startswith("  step ")]
    assert len(told) == len(set(told)) or max(map(told.count, told)) <= 2  # `validated` and `resumed` say the same
    left = [folder.name for folder in ran[0].glob(".*training")]
    assert left == [".short-1.training"]  # the one that could not be


# ---- without processes


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(2, 5), st.integers(0, 3))
def test_shares_hold_each_batch_once_and_about_as_many_tokens(tokens: list[int], count: int, epoch: int) -> None:
    lengths = np.array(tokens)
    batches = BalancedBatches(lengths, 2 * count, seed=1)
    shares = Shares(batches, lengths, count)
    shares.sampler.set_epoch(epoch)
    found, whole = list(shares), list(batches)
    assert len(found) == len(shares) == count * len(whole)
    for number, batch in enumerate(whole):
        own = found[number * count : (number + 1) * count]
        assert sorted(row for share in own for row in share) == sorted(batch)
        assert max(map(len, own)) <= -(-len(batch) // count)
        assert len(batch) < count or all(own)
    sums = [sum(tokens[row] for row in share) for share in found[: count * (len(tokens) // (2 * count))]]
    for start in range(0, len(sums), count):
        assert np.ptp(sums[start : start + count]) <= 2 * max(tokens)


def test_a_process_gets_its_shares_of_the_epoch_after_a_resume_too() -> None:
    from accelerate.data_loader import prepare_data_loader, skip_first_batches
    from torch.utils.data import DataLoader

    lengths = np.arange(1, 41)
    expected = Shares(BalancedBatches(lengths, 8, seed=1), lengths, 2)
    expected.sampler.set_epoch(3)
    loader = DataLoader(range(40), batch_sampler=Shares(BalancedBatches(lengths, 8, seed=1), lengths, 2), collate_fn=list)
    shared = prepare_data_loader(loader, num_processes=2, process_index=1, put_on_device=False, even_batches=False)
    shared.set_sampler(shared.batch_sampler.batch_sampler.sampler)  # as the trainer does
    left = skip_first_batches(shared, 2)
    left.set_epoch(3)
    assert len(shared) == 5
    assert list(left) == list(expected)[5::2]


def test_gradients_travel_in_buckets_in_their_order() -> None:
    tensors = [torch.zeros(size) for size in (3, 2**24, 5, 2**23, 2**23, 1)]
    buckets = _buckets(tensors)
    assert [tensor.numel() for bucket in buckets for tensor in bucket] == [3, 2**24, 5, 2**23, 2**23, 1]
    assert all(len(bucket) == 1 or sum(tensor.numel() for tensor in bucket) <= 2**24 for bucket in buckets)


def test_a_process_alone_asks_nobody() -> None:
    assert joined() is ALONE
    values = [torch.ones(2)]
    Ranks().add_up(values)
    assert values[0].tolist() == [1, 1]
    assert (ALONE.first(lambda: 3), ALONE.least(2, 5), ALONE.gathered("a"), ALONE.all(True)) == (3, [2, 5], ["a"], True)


@pytest.mark.parametrize(
    ("environment", "device", "match"),
    [({"ACCELERATE_USE_FSDP": "true"}, "cpu", "fit on one GPU"), ({}, "cuda:0", "a GPU of its own")],
)
def test_what_processes_cannot_share_is_refused(
    environment: dict[str, str], device: str, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"WORLD_SIZE": "2", "LOCAL_RANK": "0", "RANK": "0"} | environment).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=match):
        joined(device)
