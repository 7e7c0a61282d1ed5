"""Load a data set's corpus into a temporary index with the product's own `ingest load`."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from zoneinfo import ZoneInfo

from evals.questions.sample import CorpusEntry, Dataset, read_lines
from ingest.bulk import LoadDisplay, LoadOutcome, LoadRequest, LocalFiles, LocalTarget, SourceFile, find_files, load
from ingest.catalogue import Metadata, VersionKey, midnight
from ingest.errors import Suspicious
from ingest.services import Services
from ingest.settings import Settings
from knowledge.index import Index

TENANT = "hanbit"
_DOCUMENT_ID = re.compile(r"\w[\w.\-]{0,99}")


class CorpusNotLoaded(Exception):
    """The pipeline refused some entries; the message names the first one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A loaded corpus: `entries` maps a document's id in the index to its entry's id.

    Screening refused `left_out` entries of a public corpus, so retrieval never finds them.
    """

    entries: Mapping[str, str]
    passages: int
    left_out: int = 0


def throwaway_settings(settings: Settings, folder: Path) -> Settings:
    """Return the settings with all stores embedded in a folder."""
    embedded = {"database_url": None, "qdrant_url": None, "blob_url": None, "auth": None}
    return settings.model_copy(update={**embedded, "data_dir": folder})


async def load_corpus(dataset: Dataset, folder: Path, services: Services, display: LoadDisplay) -> Corpus:
    """Load and activate the data set's documents, or its corpus as one text file per entry (written to `folder`).

    Raises:
        DatasetBroken: the data set has neither.
        CorpusNotLoaded: the pipeline refused an entry.
    """
    has_documents = (dataset.folder / "documents").is_dir()
    if has_documents:
        files = find_files([dataset.folder / "documents"])
        entries = {str(file.document_id): str(file.document_id) for file in files}
    else:
        corpus = list(read_lines(dataset.folder / "corpus.jsonl", CorpusEntry))
        entries = document_ids(corpus)
        files = corpus_files(corpus, entries, folder)
    request = LoadRequest(tenant=TENANT, uploaded_by="evals", approver="evals-approver")
    outcomes = await load(LocalFiles(files), LocalTarget(services, request), display)
    left_out = require_loaded(outcomes, may_be_refused=not has_documents)
    await backdate_visibility(outcomes, services.index, zone=services.zone, now=services.now())
    return Corpus(entries=entries, passages=sum(outcome.passages for outcome in outcomes), left_out=left_out)


async def backdate_visibility(outcomes: Sequence[LoadOutcome], index: Index, *, zone: ZoneInfo, now: float) -> None:
    """Make each dated version visible from its date until the next version's, as if approved at that time.

    An approval doesn't apply to past days, and questions with `as_of` ask about the version valid then.
    """
    versions_of: dict[str, list[tuple[float, VersionKey]]] = {}
    for outcome in outcomes:
        day = outcome.file.metadata.effective_from
        if outcome.key is not None and day is not None:
            versions_of.setdefault(outcome.key.document_id, []).append((midnight(day, zone), outcome.key))
    for document_id, versions in versions_of.items():
        versions.sort(key=itemgetter(0))
        ends = [*(start for start, _ in versions[1:]), None]
        for (start, key), end in zip(versions, ends, strict=True):
            if start <= now:
                await index.set_visibility(
                    tenant=key.tenant,
                    document_id=document_id,
                    version=key.version,
                    visible_from=start,
                    visible_until=end,
                )


def document_ids(corpus: Sequence[CorpusEntry]) -> dict[str, str]:
    """Map document ids to entry ids: the entry's id if ingest accepts it, or else a generated document id."""
    return {
        entry.id if _DOCUMENT_ID.fullmatch(entry.id) else f"entry-{n:06d}": entry.id for n, entry in enumerate(corpus)
    }


def corpus_files(corpus: Sequence[CorpusEntry], entries: Mapping[str, str], folder: Path) -> list[SourceFile]:
    """Write each entry as a text file, and return the files for `ingest load`."""
    folder.mkdir(parents=True, exist_ok=True)
    copies: Counter[str] = Counter()
    files = []
    for document_id, entry in zip(entries, corpus, strict=True):
        path = folder / f"{document_id}.txt"
        # The catalogue accepts identical bytes only once, so trailing blank lines distinguish repeated entries.
        path.write_text(entry.text + "\n" * copies[entry.text], "utf-8")
        copies[entry.text] += 1
        title = " ".join(entry.title.split())[:300] or None
        files.append(SourceFile(path=path, name=path.name, document_id=document_id, metadata=Metadata(title=title)))
    return files


def require_loaded(outcomes: Sequence[LoadOutcome], *, may_be_refused: bool) -> int:
    """Return how many entries screening refused, which is an error unless `may_be_refused` (true for a web corpus).

    An entry without any text (a bare number) is left out, as in production.

    Raises:
        CorpusNotLoaded: the pipeline refused another entry.
    """
    refused = [outcome for outcome in outcomes if may_be_refused and outcome.reason == Suspicious.code]
    failed = [outcome for outcome in outcomes if outcome.reason not in {None, "empty_text"} and outcome not in refused]
    if failed:
        first = failed[0]
        raise CorpusNotLoaded(
            f"{len(failed)} of {len(outcomes)} entries were not loaded, first {first.file.name}: "
            f"{first.reason} ({first.detail})"
        )
    return len(refused)
