"""The files passed to `ingest load`: single files, folders, and folders with a manifest `documents.yaml`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ingest.catalogue import Metadata
from ingest.uploads import MetadataFields
from knowledge.access import EVERY_CUSTOMER

MANIFEST = "documents.yaml"
_NO_METADATA = Metadata()


class ManifestError(Exception):
    """A path or manifest is invalid; the message contains the place and the reason."""


class ManifestEntry(MetadataFields):
    """One file in a manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    readers: list[str] = Field(default=[EVERY_CUSTOMER], min_length=1)  # an empty list must not mean every customer


class Manifest(BaseModel):
    """The content of `documents.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    documents: list[ManifestEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file to load, with its metadata; `name` is its path relative to the loaded folder."""

    path: Path
    name: str
    metadata: Metadata = _NO_METADATA
    document_id: str | None = None


def find_files(paths: Sequence[Path]) -> list[SourceFile]:
    """Return the files of all paths, with the versions of a document ordered by effective date.

    A folder with a manifest yields the manifest's files, any other folder all files except hidden ones.

    Raises:
        ManifestError: a path or manifest is invalid.
    """
    return in_load_order(file for path in paths for file in _files_of_path(path))


def in_load_order(files: Iterable[SourceFile]) -> list[SourceFile]:
    """Return each file once, with the versions of a document together and ordered by effective date.

    Raises:
        ManifestError: two files without a document id have the same name, which would make them one document.
    """
    by_path = {file.path: file for file in files}
    by_name: dict[str, SourceFile] = {}
    order: dict[str, int] = {}
    for file in by_path.values():
        other = by_name.setdefault(file.name, file) if file.document_id is None else file
        if other is not file:
            problem = f"{other.path} and {file.path} are both named {file.name}"
            raise ManifestError(f"{problem}: load a folder that contains both, or give them ids in a {MANIFEST}")
        order.setdefault(file.document_id or file.name, len(order))
    return sorted(
        by_path.values(),
        key=lambda file: (order[file.document_id or file.name], file.metadata.effective_from or date.min),
    )


def _files_of_path(path: Path) -> Iterator[SourceFile]:
    if not path.exists():
        raise ManifestError(f"{path}: no such file or folder")
    if path.is_file():
        yield SourceFile(path=path.resolve(), name=path.name)
    elif (path / MANIFEST).is_file():
        yield from manifest_files(path)
    else:
        for file in sorted(path.rglob("*")):
            inside = file.relative_to(path)
            if file.is_file() and not any(part.startswith(".") for part in inside.parts):
                yield SourceFile(path=_path_inside(path, str(inside), named_in=path), name=str(inside))


def manifest_files(folder: Path) -> Iterator[SourceFile]:
    """Yield the files listed in a folder's manifest, whether they exist or not.

    Raises:
        ManifestError: the manifest is invalid.
    """
    for entry in _read_manifest(folder / MANIFEST).documents:
        yield SourceFile(
            path=_path_inside(folder, entry.file, named_in=folder / MANIFEST),
            name=entry.file.removeprefix("./"),
            document_id=entry.document_id,
            metadata=entry.metadata,
        )


def _path_inside(folder: Path, name: str, *, named_in: Path) -> Path:
    """Return a file's path in a folder, with symbolic links resolved; errors name the manifest (or folder) `named_in`.

    Raises:
        ManifestError: the file is outside the folder.
    """
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise ManifestError(f"{named_in}: {name} lies outside the folder: copy the file into the folder")
    return file


def _read_manifest(manifest: Path) -> Manifest:
    try:
        text = manifest.read_text("utf-8")
        return Manifest.model_validate(yaml.safe_load(text))
    except UnicodeDecodeError as exc:
        raise ManifestError(f"{manifest}: not UTF-8 text") from exc
    except yaml.YAMLError as exc:
        raise ManifestError(f"{manifest}: not valid YAML{_yaml_position(exc)}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        line, name = _line_of(yaml.compose(text), first["loc"]), ".".join(map(str, first["loc"]))
        raise ManifestError(f"{manifest}, line {line}: {name}: {first['msg']}") from exc


def _yaml_position(exc: yaml.YAMLError) -> str:
    if not isinstance(exc, yaml.MarkedYAMLError) or exc.problem_mark is None:
        return ""
    return f", line {exc.problem_mark.line + 1}, column {exc.problem_mark.column + 1}: {exc.problem}"


def _line_of(node: yaml.Node | None, place: Sequence[str | int]) -> int:
    """Return the line of the value at a place (keys and list indices), or of the entry that lacks it."""
    for part in place:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
        elif isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == part), node)
    return 1 if node is None else node.start_mark.line + 1
