"""A data set's corpus in a throw-away index, brought there by the product's own `ingest load`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from operator import itemgetter
from pathlib import Path

from evals.questions.sample import CorpusEntry, Dataset, DatasetBroken, read_lines
from ingest.bulk import LoadOrder, LoadOutcome, ProgressDisplay, SourceFile, find_files, load
from ingest.catalogue import Metadata, midnight
from ingest.errors import Suspicious
from ingest.services import Services
from ingest.settings import Settings

TENANT = "hanbit"
_DOCUMENT_ID = re.compile(r"\w[\w.\-]{0,99}")


class CorpusNotLoaded(Exception):
    """Some entries did not come through the pipeline; the message names the first of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What was loaded: `entries` maps a document's id in the index to the entry that it is.

    Entries of a public corpus that nobody could approve (`left_out`) are not found here, as they would not be by
    customers.
    """

    entries: Mapping[str, str]
    passages: int
    left_out: int = 0


def throw_away(settings: Settings, folder: Path) -> Settings:
    """Return the settings with every store embedded in a folder, whatever the environment names."""
    elsewhere = {"database_url": None, "qdrant_url": None, "blob_url": None, "auth": None}
    return settings.model_copy(update={**elsewhere, "data_dir": folder})


async def load_corpus(
    dataset: Dataset, folder: Path, services: Services, show: ProgressDisplay, *, tenant: str = TENANT
) -> Corpus:
    """Load the data set's documents, or its corpus as one text file an entry (written to `folder`), and activate them.

    Raises:
        DatasetBroken: there is neither.
        CorpusNotLoaded: an entry did not come through.
    """
    own = (dataset.folder / "documents").is_dir()
    if own:
        files = find_files([dataset.folder / "documents"])
        entries = {str(file.document_id): str(file.document_id) for file in files}
    else:
        corpus = list(read_lines(dataset.folder / "corpus.jsonl", CorpusEntry))
        entries = document_ids(corpus)
        files = as_files(corpus, entries, folder)
    order = LoadOrder(tenant=tenant, uploaded_by="evals", approver="evals-approver")
    outcomes = await load(files, order, services, show)
    left_out = require_loaded(outcomes, may_be_refused=not own)
    await open_since_their_dates(outcomes, services)
    return Corpus(entries=entries, passages=sum(outcome.passages for outcome in outcomes), left_out=left_out)


async def open_since_their_dates(outcomes: Sequence[LoadOutcome], services: Services) -> None:
    """Let every version with a date be read from that day until the next version's, as if approved in its time.

    An approval opens nothing for days that have passed, and questions of a day (`as_of`) ask what was in force then.
    """
    dated = [(outcome.key, outcome.file.metadata.effective_from) for outcome in outcomes if outcome.key]
    opened = sorted(
        ((key.document_id, midnight(day, services.zone), key) for key, day in dated if day is not None),
        key=itemgetter(0, 1),
    )
    for (document_id, begins, key), following in zip_longest(opened, opened[1:]):
        until = following[1] if following and following[0] == document_id else None
        if begins <= services.now():
            await services.index.set_visibility(
                tenant=key.tenant,
                document_id=document_id,
                version=key.version,
                visible_from=begins,
                visible_until=until,
            )


def document_ids(corpus: Sequence[CorpusEntry]) -> dict[str, str]:
    """Return a document id for every entry: its own where ingest takes it, else a made one."""
    return {
        entry.id if _DOCUMENT_ID.fullmatch(entry.id) else f"entry-{n:06d}": entry.id for n, entry in enumerate(corpus)
    }


def as_files(corpus: Sequence[CorpusEntry], entries: Mapping[str, str], folder: Path) -> list[SourceFile]:
    """Write every entry as a text file and return them as `ingest load` takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    seen: dict[str, int] = {}
    files = []
    for document_id, entry in zip(entries, corpus, strict=True):
        repeats = seen[entry.text] = seen.get(entry.text, -1) + 1
        path = folder / f"{document_id}.txt"
        # The catalogue takes the same bytes only once: blank lines at the end tell repeated entries apart.
        path.write_text(entry.text + "\n" * repeats, "utf-8")
        title = " ".join(entry.title.split())[:300] or None
        files.append(SourceFile(path=path, name=path.name, document_id=document_id, metadata=Metadata(title=title)))
    return files


def require_loaded(outcomes: Sequence[LoadOutcome], *, may_be_refused: bool) -> int:
    """Return how many entries screening refused to have approved, where it may: sample code in a corpus of the web.

    An entry that is no text at all (a bare number) is left out like in production.

    Raises:
        CorpusNotLoaded: another entry did not come through.
    """
    refused = [outcome for outcome in outcomes if may_be_refused and outcome.reason == Suspicious.code]
    failed = [one for one in outcomes if one.reason not in {None, "empty_text"} and one not in refused]
    if failed:
        first = failed[0]
        raise CorpusNotLoaded(
            f"{len(failed)} of {len(outcomes)} entries were not loaded, first {first.file.name}: "
            f"{first.reason} ({first.detail})"
        )
    return len(refused)


__all__ = ["Corpus", "CorpusNotLoaded", "DatasetBroken", "load_corpus", "throw_away"]
