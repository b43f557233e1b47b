"""The command line: each command is a thin shell over one public function. Heavy imports happen inside commands."""

from distilrank.cli import data, evidence, runs, steps, teachers
from distilrank.cli.app import app, main, run

__all__ = ["app", "data", "evidence", "main", "run", "runs", "steps", "teachers"]
