"""What is asked: data sets, corpora, recordings, and answers as a customer saw them."""

from evals.questions.answered import Answered
from evals.questions.corpus import (
    TENANT,
    Corpus,
    CorpusNotLoaded,
    as_files,
    document_ids,
    load_corpus,
    require_loaded,
    throw_away,
)
from evals.questions.recording import (
    Part,
    Recording,
    RecordingBroken,
    Shown,
    Spoken,
    documents_digest,
    made,
    read_recording,
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
from evals.questions.spellings import Spelled, spelled, spellings_of

__all__ = [
    "HANBIT",
    "TENANT",
    "Answered",
    "Corpus",
    "CorpusEntry",
    "CorpusNotLoaded",
    "Dataset",
    "DatasetBroken",
    "HistoryTurn",
    "Part",
    "Recording",
    "RecordingBroken",
    "Sample",
    "Shown",
    "Spelled",
    "Spoken",
    "as_files",
    "document_ids",
    "documents_digest",
    "load_corpus",
    "made",
    "read_dataset",
    "read_lines",
    "read_recording",
    "require_loaded",
    "spelled",
    "spellings_of",
    "throw_away",
    "write_recording",
]
