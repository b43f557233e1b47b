"""What two processes do together in `test_distributed.py`.

    python together.py FOLDER BERT NAME...            # in each of them, as torchrun starts them
    python together.py --pairs FOLDER BERT NAME,...   # forks two for the names of the first word, then two for the next

The second way reads the libraries, which take longer than the trainings, once and not once a process.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from distilrank.errors import UserError
from distilrank.progress import process_number
from distilrank.students import TrainSettings, dataset, learn, train
from distilrank.students.follow import Steps
from distilrank.students.optimiser import GuardedAdamW
from distilrank.students.trainer import GroupLoss

SETTINGS = TrainSettings(
    loss="margin_mse",
    warmup=0.05,
    epochs=1.25,
    learning_rate=1e-3,
    queries_per_step=4,
    validation=0.0,
    calibrate="none",
    precision="float32",
    max_length=48,
    device="cpu",
    dropout=0.0,
)
"""Of 61 queries: 20 steps, and the last one of an epoch is of one query, which leaves a process without any."""
VALIDATED = SETTINGS.model_copy(update={"validation": 0.2, "epochs": 2.0, "dropout": 0.1})
TRIPLETS = SETTINGS.model_copy(update={"mode": "triplets", "batch_size": 8, "accumulation": 2, "validation": 0.2})
KILLED_AT = 17


@contextlib.contextmanager
def put(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute with another value for a while."""
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def plain(folder: Path, bert: Path, name: str, settings: TrainSettings = SETTINGS, data: str = "groups") -> Any:
    """A training, and its first gradients."""
    update = GuardedAdamW.update

    def kept(self: Any) -> None:
        found = {str(n): p.grad.clone() for n, p in enumerate(self.parameters()) if p.grad is not None}
        file = folder / f"{name}.gradients.{process_number()}.safetensors"
        if not file.exists():
            save_file(found, file)
        update(self)

    with put(GuardedAdamW, "update", kept):
        return train(folder / f"{data}.jsonl", bert, folder / name, settings)


def uneven(folder: Path, bert: Path) -> Any:
    """The second process forwards its share in many pieces."""
    with put(learn, "TOKENS_A_PIECE", {"cpu": 60 if process_number() else 4096}):
        return train(folder / "groups.jsonl", bert, folder / "uneven", SETTINGS)


def broken(folder: Path, bert: Path) -> Any:
    """A query whose scores are infinite."""
    rows = dataset.training_rows

    def spoilt(groups: Any, *more: Any) -> Any:
        kept = list(groups)
        for group, row in zip(kept, rows(kept, *more), strict=True):
            if group.query == "query 7":
                row["scores"][0] = math.inf
            yield row

    with put(dataset, "training_rows", spoilt):
        return train(folder / "groups.jsonl", bert, folder / "broken", SETTINGS.model_copy(update={"epochs": 4.0}))


def short(folder: Path, bert: Path, most: int = 150) -> Any:
    """The second process has memory for so many tokens at a time."""
    forward = GroupLoss.forward

    def small(self: Any, piece: Any, units: Any) -> Any:
        loss = forward(self, piece, units)
        if process_number() and piece["inputs"]["input_ids"].numel() > most:
            loss.backward()  # what is there of a gradient must not be counted twice
            raise torch.OutOfMemoryError
        return loss

    with put(GroupLoss, "forward", small):
        return train(folder / "groups.jsonl", bert, folder / f"short-{most}", SETTINGS)


def killed(folder: Path, bert: Path) -> Any:
    """kill -9 of the second process in the middle, after its second checkpoint."""
    end = Steps.on_step_end

    def dies(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        if process_number() and state.global_step == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        end(self, args, state, control, **more)

    with put(Steps, "on_step_end", dies):
        return train(folder / "groups.jsonl", bert, folder / "resumed", VALIDATED)


DONE: dict[str, Any] = {
    "plain": lambda folder, bert: plain(folder, bert, "plain"),
    "validated": lambda folder, bert: plain(folder, bert, "validated", VALIDATED),
    "resumed": lambda folder, bert: plain(folder, bert, "resumed", VALIDATED),
    "triplets": lambda folder, bert: plain(folder, bert, "triplets", TRIPLETS, "triplets"),
    "uneven": uneven,
    "broken": broken,
    "short": short,
    "never": lambda folder, bert: short(folder, bert, 1),
    "killed": killed,
}


def work(folder: Path, bert: Path, names: list[str]) -> None:
    """What one process does."""
    torch.distributed.init_process_group("gloo")
    for name in names:
        try:
            result = {key: None if value != value else value for key, value in asdict(DONE[name](folder, bert)).items()}
        except UserError as error:
            result = {"error": str(error)}
        (folder / f"{name}.{process_number()}.json").write_text(json.dumps(result))


def forked(folder: Path, bert: Path, names: list[str]) -> list[int]:
    """The same in two processes of this one's making; how each of them ended."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    for rank in ("0", "1"):
        if not (child := os.fork()):
            os.environ.update(common | {"RANK": rank, "LOCAL_RANK": rank})
            status = 1
            try:
                work(folder, bert, names)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main() -> None:
    pairs, arguments = sys.argv[1] == "--pairs", [argument for argument in sys.argv[1:] if argument != "--pairs"]
    folder, bert = map(Path, arguments[:2])
    if not pairs:
        return work(folder, bert, arguments[2:])
    for number, names in enumerate(arguments[2:]):
        (folder / f"ends-{number}.json").write_text(json.dumps(forked(folder, bert, names.split(","))))
        print(f"==== together: {names}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
