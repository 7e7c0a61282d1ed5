"""How the product reads every file of a folder, beside another parser."""

__all__ = []
