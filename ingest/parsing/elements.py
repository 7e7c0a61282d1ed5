"""XML elements: their names without a namespace, and what they stand in. Pure."""

from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

Parents = Mapping[Element, Element]


def local(element: Element) -> str:
    """Return the name of an element without its namespace; nothing for a comment."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def parents_of(root: Element) -> Parents:
    """Return the parent of every element below a root."""
    return {child: parent for parent in root.iter() for child in parent}


def ancestors(element: Element, parents: Parents) -> Iterator[Element]:
    """Yield what an element stands in, from the nearest."""
    parent = parents.get(element)
    while parent is not None:
        yield parent
        parent = parents.get(parent)
