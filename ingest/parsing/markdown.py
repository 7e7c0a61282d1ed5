"""Markdown: the text itself, without front matter (its title is read), comments and pictures."""

import re

import yaml

from ingest.parsing.parsed import Format, Page, Parsed
from ingest.parsing.text import without_pictures

_FRONT_MATTER = re.compile(r"\A---\n(.{0,20000}?)\n(?:---|\.\.\.)\n", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_FIRST_HEADING = re.compile(r"^ {0,3}#{1,2}[ \t]++(\S.*)$", re.MULTILINE)


def parse_markdown(text: str) -> Parsed:
    """Return Markdown without its front matter; the title is the front matter's, else the first heading."""
    front_matter = _FRONT_MATTER.match(text)
    title = _front_title(front_matter.group(1)) if front_matter else None
    body = without_pictures(_COMMENT.sub("", text[front_matter.end() :] if front_matter else text))
    return Parsed(
        format=Format.MARKDOWN,
        title=title or first_heading(body),
        pages=(Page(number=None, markdown=body.strip()),),
    )


def first_heading(markdown: str) -> str | None:
    """Return the text of the first heading of level 1 or 2."""
    match = _FIRST_HEADING.search(markdown)
    return match.group(1).rstrip().rstrip("#").strip(" \t*_`") if match else None


def _front_title(block: str) -> str | None:
    try:
        fields = yaml.safe_load(block)
    except yaml.YAMLError:  # a rule line that only looks like front matter
        return None
    title = fields.get("title") if isinstance(fields, dict) else None
    return str(title) if title else None
