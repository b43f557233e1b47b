"""The one kind of number in an evaluation's findings."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BeforeValidator

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A float that may be NaN: strict JSON has none, so that it is null in `evaluation.json` and NaN again when it is read."""
