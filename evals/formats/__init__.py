"""A report on reading all files of a folder, compared with other parsers."""

__all__ = []
