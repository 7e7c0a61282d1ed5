"""Data sets, their corpora, recorded answers, and answers as a customer sees them."""

from evals.questions.answered import CustomerAnswer
from evals.questions.composed import ComposedIdentifier, composed_identifiers
from evals.questions.corpus import (
    TENANT,
    Corpus,
    CorpusNotLoaded,
    corpus_files,
    document_ids,
    load_corpus,
    require_loaded,
    throwaway_settings,
)
from evals.questions.recording import (
    PartialRecording,
    RecordedAnswer,
    RecordedPassage,
    Recording,
    RecordingBroken,
    documents_digest,
    read_recording,
    recording_header,
    write_recording,
)
from evals.questions.sample import (
    HANBIT,
    CorpusEntry,
    Dataset,
    DatasetBroken,
    HistoryTurn,
    Sample,
    read_dataset,
    read_lines,
)
from evals.questions.spellings import SpelledIdentifier, spelled_identifiers, spellings_of

__all__ = [
    "HANBIT",
    "TENANT",
    "ComposedIdentifier",
    "Corpus",
    "CorpusEntry",
    "CorpusNotLoaded",
    "CustomerAnswer",
    "Dataset",
    "DatasetBroken",
    "HistoryTurn",
    "PartialRecording",
    "RecordedAnswer",
    "RecordedPassage",
    "Recording",
    "RecordingBroken",
    "Sample",
    "SpelledIdentifier",
    "composed_identifiers",
    "corpus_files",
    "document_ids",
    "documents_digest",
    "load_corpus",
    "read_dataset",
    "read_lines",
    "read_recording",
    "recording_header",
    "require_loaded",
    "spelled_identifiers",
    "spellings_of",
    "throwaway_settings",
    "write_recording",
]
