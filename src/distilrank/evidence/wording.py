"""How tables and the report write numbers and texts. No number is a negative zero."""

from __future__ import annotations

import math
from collections.abc import Sequence

TEXT = 600
"""Characters of a text that are shown; a report is for reading."""
MEANS = {"AP": "MAP", "RR": "MRR", "nDCG": "NDCG"}
NO_BREAK = "\u00a0"
CONTROL = dict.fromkeys([*(set(range(32)) - set(b"\t\n\r")), 127], "\ufffd")
"""Control characters that HTML forbids."""


def cut(text: str, most: int = TEXT) -> str:
    """A text short enough to read, without the control characters that HTML forbids."""
    whole = str(text).translate(CONTROL)
    return whole if len(whole) <= most else whole[:most].rstrip() + " …"


def number(value: float | None, digits: int = 4) -> str:
    """A fixed number of decimals with a real minus sign; a dash for what is not finite or not there."""
    return f"{value:z,.{digits}f}".replace("-", "−") if _known(value) else "–"


def signed(value: float | None, style: str = ".4f") -> str:
    """The same with its sign, in any format."""
    return f"{value:+z{style}}".replace("-", "−") if _known(value) else "–"


def points(share: float | None, unit: str = " points") -> str:
    """A difference of two shares in percentage points: no change in percent."""
    return f"{signed(100 * share, '.1f')}{NO_BREAK}{unit.strip()}".rstrip() if share is not None and _known(share) else "–"


def brief(value: float) -> str:
    """Three decimals without the leading zero, as measures are quoted in prose."""
    return number(value, 3).replace("0.", ".", 1) if abs(value) < 0.9995 else number(value, 3)


def brief_signed(value: float) -> str:
    """The same with its sign."""
    return ("−" if round(value, 3) < 0 else "+") + brief(abs(value))


def shown(measure: str) -> str:
    """A measure's usual name for its mean over queries: AP -> MAP, RR@10 -> MRR@10, nDCG@10 -> NDCG@10."""
    stem, at, depth = measure.partition("@")
    return MEANS.get(stem, stem) + at + depth


def p_value(p: float) -> str:
    """A p-value as people read it."""
    return "-" if p != p else ("< 0.0001" if p < 1e-4 else f"{p:.4f}")


def p_words(p: float) -> str:
    """A p-value in a sentence."""
    if math.isnan(p):
        return "no test"
    text = p_value(p).replace("0.", ".", 1) if p < 1 else "1"
    return (f"p {text}" if text.startswith("<") else f"p = {text}").replace(" ", NO_BREAK)


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: 1 query, 1,033 queries."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def sequence(names: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def duration(milliseconds: float) -> str:
    """Two or three figures with the unit that suits them."""
    if milliseconds >= 10_000:
        return f"{milliseconds / 1e3:,.0f} s"
    if milliseconds >= 1_000:
        return f"{milliseconds / 1e3:.1f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def size(count: float | None, unit: str = "") -> str:
    """A large number with its prefix: 568 M, 1.1 GB; a dash where it is not known."""
    if count is None:
        return "–"
    for factor, prefix in ((1e9, "G" if unit else "B"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            digits = 1 if count < 10 * factor else 0
            return f"{count / factor:,.{digits}f} {prefix}{unit}"
    return f"{count:,.0f} {unit}".strip()
