"""docs/training.md describes every option of a training and every loss."""

from __future__ import annotations

import re
from pathlib import Path

from distilrank.recipe import TrainSpec
from distilrank.students.losses import LOSSES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"


def test_every_option_and_every_loss_is_described_and_nothing_else() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted([*TrainSpec.model_fields, *LOSSES])
