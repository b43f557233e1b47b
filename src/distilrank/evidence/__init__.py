"""Evidence: arrays of scores become per-query measures, tests, a table and a report. No model is loaded here."""

from distilrank.evidence.evaluate import Evaluation, System, evaluate
from distilrank.evidence.folder import load_evaluation, save_evaluation, summary
from distilrank.evidence.report import write_report
from distilrank.evidence.table import change_table, print_tables

__all__ = [
    "Evaluation",
    "System",
    "change_table",
    "evaluate",
    "load_evaluation",
    "print_tables",
    "save_evaluation",
    "summary",
    "write_report",
]
