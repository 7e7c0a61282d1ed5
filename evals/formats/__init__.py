"""The report on how the product reads every file of a folder, compared with other parsers."""

__all__ = []
