"""Formats: what other tools read and write becomes groups, and groups become what other trainers read. One format a file."""

from distilrank.data.formats.convert import FORMATS, Parts, convert, read_any_groups, read_items, write_items

__all__ = ["FORMATS", "Parts", "convert", "read_any_groups", "read_items", "write_items"]
