"""The same on a Ray cluster: Ray Data hands out the work, an actor a GPU does it, each writes its own parts to the store.

What runs is the same as here; only where it runs differs. Ray restarts actors that die and gives their piece to another, so
a dead node loses the pieces in flight at most; how many nodes there are is up to Ray's autoscaler.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distilrank.errors import UserError
from distilrank.progress import say
from distilrank.records import Group, Passage
from distilrank.scoring.aside import Refused
from distilrank.scoring.score import Job, Size, is_broken, parts_of, scoring_of
from distilrank.scoring.store import ScoreStore
from distilrank.shards import append_part, place
from distilrank.teachers import Teacher

Build = Callable[[], Teacher]
PIECE_PAIRS = 4_096
"""Pairs of a piece: what a node that dies loses."""
FEWEST_PAIRS, PIECES_EACH = 256, 4
"""Smaller where that gives each actor so many pieces, so that all of them end at about the same time."""
MOST_ACTORS = 1_024
NO_RAY = "--on ray needs Ray: pip install 'distilrank[ray]'"
RETRIES = 2
"""So often a piece is given to another actor after its actor died: more often, and it is the piece."""
PIECE = pa.schema([("query_id", pa.string()), ("query", pa.string()), ("passages", pa.list_(pa.string()))])
VERDICT = pa.schema([("piece", pa.string()), ("pairs", pa.int64()), ("refused", pa.string()), ("error", pa.string())])


@dataclass(frozen=True)
class RayCluster:
    """How much of the cluster: at most `most` actors, each with `gpus` GPUs (0: cores alone, two actors a core)."""

    most: int
    gpus: int = 1

    def drive(self, build: Build, job: Job) -> None:
        """Score on the cluster (`scoring.score`); the job's own teacher only says what is best asked for together.

        `build` makes the teacher on a node: its model must be found there under the same path, or be a hub's. Where the
        store is a folder, every node must see it under the same path.

        Raises `UserError` when an actor cannot build the teacher, when it builds another one, or when a piece of work ends
        its actors and nothing may be set aside.
        """
        job.teacher.release()
        job = replace(job, store=job.store.absolute())  # a node's working folder is another
        shares = max(FEWEST_PAIRS, job.missing.pairs // (PIECES_EACH * self.most))
        with _started(), _pieces(job, min(job.part_pairs, PIECE_PAIRS, shares)) as pieces:
            lost = set(map(str, pieces))
            for path, pairs, refused in self._verdicts(pieces, build, job.store, job.aside.most):
                lost.discard(path)
                job.advance(pairs + sum(one.pairs for one in refused))
                job.aside.add(refused)
            reason = UserError(f"the process that scored it ended, {RETRIES + 1} times")
            for path in sorted(lost):  # Ray leaves them out, as many as may be set aside
                job.aside.add(Refused.of(group, reason) for group in _read_piece(path))

    def _verdicts(
        self, pieces: list[Path], build: Build, store: ScoreStore, most: int
    ) -> Iterator[tuple[str, int, list[Refused]]]:
        """What became of each piece, as they are done: its path, the pairs scored, and the groups refused."""
        ray = _ray()
        gpus = self.gpus if os.environ.get("RAY_ADDRESS") or ray.cluster_resources().get("GPU") else 0
        if gpus and not ray.cluster_resources().get("GPU"):
            say("  the Ray cluster has no GPU now: waiting for its autoscaler to bring one (--gpus 0: its cores score)")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # progress is told once, in our words
        context.max_errored_blocks = most
        context.execution_options.preserve_order = False
        data = ray.data.from_items([str(path) for path in pieces], override_num_blocks=len(pieces))
        verdicts = data.map_batches(
            _Actor,
            fn_constructor_kwargs={"build": build, "store": store, "apart": bool(most)},
            batch_size=1,
            batch_format="pyarrow",
            concurrency=(1, max(1, min(self.most, len(pieces)))),
            num_gpus=gpus or None,
            num_cpus=1 if gpus else 0.5,
            max_restarts=-1,
            max_task_retries=RETRIES,
        )
        try:
            for batch in verdicts.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
                for row in batch.to_pylist():
                    if row["error"]:
                        raise UserError(row["error"])
                    yield row["piece"], row["pairs"], [Refused(*one) for one in json.loads(row["refused"])]
        except ray.exceptions.RayError as error:
            raise UserError(f"Ray: {_last_line(error)}: what was scored is kept, the same command goes on") from error


def cluster(asked: str, each: int = 1) -> RayCluster:
    """At most `asked` GPUs of the cluster (a number, `all`, or 0: cores alone), `each` to an actor.

    `all` lets Ray's autoscaler decide how many there are. A cluster of this machine alone, without a GPU, uses its cores.
    Raises `UserError` when `asked` is no number of GPUs, or Ray is not installed.
    """
    if find_spec("ray") is None:
        raise UserError(NO_RAY)
    if asked == "0":
        return RayCluster(os.cpu_count() or 1, gpus=0)
    most = MOST_ACTORS if asked == "all" else int(asked) // each if asked.isdecimal() else 0
    if not most:
        raise UserError(f"--gpus {asked}: say all, or a number{f' of at least {each} (tensor_parallel_size)' * (each > 1)}")
    return RayCluster(most, each)


class _Actor:
    """A teacher on a node. What the user can mend is told in a row, so that Ray does not try it again."""

    def __init__(self, build: Build, store: ScoreStore, apart: bool) -> None:
        self.store, self.apart, self.error = store, apart, ""
        try:
            self.teacher = build()
            if self.teacher.identity.digest != store.folder.name:
                self.error = "a node of the cluster has another model or other settings under the teacher's name"
        except UserError as error:
            self.error = str(error)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._verdict(path) for path in batch["item"].to_pylist()], schema=VERDICT)

    def _verdict(self, path: str) -> dict[str, Any]:
        pairs, refused = 0, list[Refused]()
        if not self.error:
            try:
                pairs, refused = scoring_of(_read_piece(path), self.teacher, self.store, self.apart)(lambda done: None)
            except UserError as error:
                self.error = str(error)
            except Exception as error:
                if is_broken(error):
                    os._exit(1)  # Ray starts the actor anew, and gives it the piece again
                # What is a group's fault has been set aside by now: this is the node's, or the store's.
                self.error = f"{type(error).__name__}: {_last_line(error)}"
        return {"piece": path, "pairs": pairs, "refused": json.dumps(refused), "error": self.error}


def _ray() -> Any:
    try:
        import_module("ray.data")
        return import_module("ray")
    except ImportError:
        raise UserError(NO_RAY) from None


@contextmanager
def _started() -> Iterator[None]:
    """A connection to the cluster that RAY_ADDRESS names or that runs here already, or else a small one on this machine."""
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(log_to_driver=False)
    except Exception as error:  # Ray raises all kinds
        raise UserError(f"Ray: no cluster ({os.environ.get('RAY_ADDRESS', 'none is named')}): {_last_line(error)}") from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _pieces(job: Job, pairs: int) -> Iterator[list[Path]]:
    """The work as Parquet files beside the store's parts, where every node can read them, until it is done."""
    folder = job.store.folder / f"work-{uuid.uuid4().hex}"
    try:
        parts = parts_of(job.missing.groups, job.teacher, Size(pairs, pairs))
        yield [append_part(folder, _table(groups)) for groups in parts]
    finally:
        with suppress(OSError):
            for file in folder.glob("*"):
                file.unlink()
            folder.rmdir()


def _table(groups: list[Group]) -> pa.Table:
    rows = [(group.query_id, group.query, [passage.text for passage in group.passages]) for group in groups]
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=PIECE)


def _read_piece(path: str) -> list[Group]:
    with place(path).open("rb") as stream:
        rows = pq.read_table(stream).to_pylist()
    return [Group(row["query_id"], row["query"], tuple(map(Passage, row["passages"]))) for row in rows]


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:500]
