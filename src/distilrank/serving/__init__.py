"""Serving: a model folder behind HTTP, in the words of the servers and APIs that people already call.

`serve` runs until it is told to stop; `create_app` is the same as an ASGI application. Needs the extra `serve`.
"""

from distilrank.serving.settings import ServeSettings

__all__ = ["ServeSettings"]
