"""What `ingest load` is given: files, folders, and folders with a manifest `documents.yaml` about their files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ingest.catalogue import Metadata
from knowledge.access import EVERY_CUSTOMER
from knowledge.passage import Language

MANIFEST = "documents.yaml"
_NOTHING_SAID = Metadata()


class ManifestError(Exception):
    """A manifest that cannot be used; the message says where and why."""


class ManifestEntry(BaseModel):
    """One file of a manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    document_id: str | None = None
    title: str | None = None
    product: str | None = None
    language: Language | None = None
    readers: list[str] = Field(default=[EVERY_CUSTOMER], min_length=1)
    effective_from: date | None = None
    effective_until: date | None = None


class Manifest(BaseModel):
    """The file `documents.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    documents: list[ManifestEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offering:
    """A file to load, with what is known about it."""

    path: Path
    name: str
    metadata: Metadata = _NOTHING_SAID
    document_id: str | None = None


def gather(paths: Sequence[Path]) -> list[Offering]:
    """Return the files of all paths; versions of one document in the order of their effective dates.

    A folder with a manifest gives the manifest's files only, a folder without one every file in it but hidden ones.

    Raises:
        ManifestError: see its message.
    """
    return in_order(offering for path in paths for offering in _of_path(path))


def in_order(offerings: Iterable[Offering]) -> list[Offering]:
    """Return each file once, versions of one document together in the order of their effective dates."""
    found = {offering.path: offering for offering in offerings}
    order: dict[str, int] = {}
    for offering in found.values():
        order.setdefault(offering.document_id or offering.name, len(order))
    return sorted(
        found.values(),
        key=lambda o: (order[o.document_id or o.name], o.metadata.effective_from or date.min),
    )


def _of_path(path: Path) -> Iterator[Offering]:
    if not path.exists():
        raise ManifestError(f"{path}: there is no such file or folder")
    if path.is_file():
        yield Offering(path=path.resolve(), name=path.name)
    elif (path / MANIFEST).is_file():
        yield from of_manifest(path)
    else:
        for file in sorted(path.rglob("*")):
            inside = file.relative_to(path)
            if file.is_file() and not any(part.startswith(".") for part in inside.parts):
                yield Offering(path=file.resolve(), name=str(inside))


def of_manifest(folder: Path) -> Iterator[Offering]:
    """Return the files that a folder's manifest names, whether they are there or not.

    Raises:
        ManifestError: see its message.
    """
    for entry in _read(folder / MANIFEST).documents:
        file = (folder / entry.file).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise ManifestError(f"{folder / MANIFEST}: {entry.file} lies outside the folder")
        yield Offering(
            path=file,
            name=entry.file,
            document_id=entry.document_id,
            metadata=Metadata(
                title=entry.title,
                product=entry.product,
                language=entry.language,
                readers=tuple(dict.fromkeys(entry.readers)),
                effective_from=entry.effective_from,
                effective_until=entry.effective_until,
            ),
        )


def _read(manifest: Path) -> Manifest:
    try:
        return Manifest.model_validate(yaml.safe_load(manifest.read_text("utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ManifestError(f"{manifest}: not valid YAML") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ManifestError(f"{manifest}: {where}: {first['msg']}") from exc
