"""The versions of libraries that a record names."""

from __future__ import annotations

from importlib import metadata

from distilrank import __version__


def versions(*libraries: str) -> dict[str, str]:
    """The version of each; our own is known in a checkout that is not installed, too."""
    return {name: __version__ if name == "distilrank" else metadata.version(name) for name in libraries}
