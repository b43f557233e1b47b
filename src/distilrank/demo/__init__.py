"""The embedded demo: data out of Python's own standard library, models out of PyPI wheels; no hub is needed."""

from distilrank.demo.models import demo_model
from distilrank.demo.reference import REFERENCE_NOTE, reference_groups
from distilrank.demo.sizes import demo_changes
from distilrank.demo.stdlib import NOTES, demo_groups

__all__ = ["demo_changes", "demo_groups", "demo_model", "notes_on", "reference_groups"]


def notes_on(test: str | None, *outside: str) -> list[str]:
    """What a sceptic should know about the sets of ours among an evaluation's sources."""
    notes = list(NOTES) if (test or "").startswith("demo:") else []
    return [*notes, *([REFERENCE_NOTE] if any(source.startswith("demo:") for source in outside) else [])]
