"""The command line: each command is a thin shell over one public function. Heavy imports happen inside commands."""

from distilrank.cli import corpus, data, deploy, evidence, plan, runs, serve, steps, teachers
from distilrank.cli.app import app, main, run

__all__ = ["app", "corpus", "data", "deploy", "evidence", "main", "plan", "run", "runs", "serve", "steps", "teachers"]
