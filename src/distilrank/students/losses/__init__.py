"""Losses, one a file: `loss(student [n], teacher [n], group [n]) -> scalar`, each passage forwarded once."""

from distilrank.students.losses.margin_mse import margin_mse

__all__ = ["margin_mse"]
