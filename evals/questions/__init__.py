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
from evals.questions.dialogue import Dialogue, DialogueTurn, read_dialogues
from evals.questions.falsified import FalsifiedSentence, falsified
from evals.questions.held_out import HeldOutIdentifier, held_out_identifiers
from evals.questions.recording import (
    PartialRecording,
    RecordedAnswer,
    RecordedPassage,
    Recording,
    RecordingBroken,
    RecordingHeader,
    documents_digest,
    header_of,
    read_recording,
    recording_header,
    without_documents,
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
from evals.questions.tricky import tricky_questions

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
    "Dialogue",
    "DialogueTurn",
    "FalsifiedSentence",
    "HeldOutIdentifier",
    "HistoryTurn",
    "PartialRecording",
    "RecordedAnswer",
    "RecordedPassage",
    "Recording",
    "RecordingBroken",
    "RecordingHeader",
    "Sample",
    "SpelledIdentifier",
    "composed_identifiers",
    "corpus_files",
    "document_ids",
    "documents_digest",
    "falsified",
    "header_of",
    "held_out_identifiers",
    "load_corpus",
    "read_dataset",
    "read_dialogues",
    "read_lines",
    "read_recording",
    "recording_header",
    "require_loaded",
    "spelled_identifiers",
    "spellings_of",
    "throwaway_settings",
    "tricky_questions",
    "without_documents",
    "write_recording",
]
