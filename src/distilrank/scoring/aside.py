"""Groups that could not be scored, set aside with the reason, so that one of them does not end a job of days."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from distilrank.errors import UserError
from distilrank.records import Group
from distilrank.rows import BadLines
from distilrank.shards import write_text


class Refused(NamedTuple):
    """A group that could not be scored: how many of its pairs were asked for, and why there is no score."""

    query_id: str
    query: str
    pairs: int
    reason: str

    @classmethod
    def of(cls, group: Group, error: Exception) -> Refused:
        told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        reason = (told.strip().splitlines() or [""])[0]
        return cls(group.query_id, group.query, len(group.passages), reason[:1_000])


@dataclass
class Aside:
    """What was set aside so far; more than `most` groups (and unreadable rows, `bad`) end the job.

    With `most` 0 nothing is set aside: the first error ends the job as it is. `path` keeps the list as JSON lines.
    """

    most: int = 0
    path: Path | None = None
    bad: BadLines | None = None
    _found: dict[tuple[str, str], Refused] = field(default_factory=dict)

    @property
    def found(self) -> list[Refused]:
        """The groups set aside, each once."""
        return list(self._found.values())

    def add(self, refused: Iterable[Refused]) -> None:
        """Set groups aside; the pieces of one count once. Raises `UserError` when that makes too many."""
        for one in refused:
            known = self._found.get((one.query_id, one.query))
            self._found[one.query_id, one.query] = one._replace(pairs=one.pairs + known.pairs) if known else one
        self.check()

    def check(self) -> None:
        """Raise `UserError` when more is set aside than was allowed."""
        if self.most and self.count > self.most:
            self.write()
            reasons = [one.reason for one in self.found] or list(self.bad.reasons.values() if self.bad else ())
            where = f"; all are in {self.path}" if self.path else ""
            raise UserError(
                f"more than {self.most:,} groups cannot be scored (--max-errors), the last: {reasons[-1]}{where}"
            )

    def write(self) -> None:
        """Write the list, where there is something in it; where there is not, that of an earlier time goes."""
        if self.path is None or not self.most:
            return
        if not self.count:
            self.path.unlink(missing_ok=True)
            return
        rows: list[dict[str, object]] = [
            {"where": at, "reason": why} for at, why in (self.bad.reasons if self.bad else {}).items()
        ]
        rows += [refused._asdict() for refused in self.found]
        write_text(self.path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    @property
    def pairs(self) -> int:
        """Pairs of the groups that were set aside."""
        return sum(refused.pairs for refused in self._found.values())

    @property
    def count(self) -> int:
        """Groups and rows that were set aside."""
        return len(self._found) + len(self.bad.reasons if self.bad else ())
