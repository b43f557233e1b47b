"""The embedded demo: data out of Python's own standard library, models out of PyPI wheels; no hub is needed."""

from distilrank.demo.models import demo_model
from distilrank.demo.reference import NOTE, reference_groups
from distilrank.demo.sizes import demo_changes
from distilrank.demo.stdlib import NOTES, demo_groups

__all__ = ["NOTE", "NOTES", "demo_changes", "demo_groups", "demo_model", "reference_groups"]
