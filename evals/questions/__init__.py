"""Data sets, their corpora, recorded answers, synthetic sentences, and answers as customers see them."""

from evals.questions.answered import CustomerAnswer
from evals.questions.corpus import TENANT, Corpus, CorpusNotLoaded, load_corpus, throwaway_settings
from evals.questions.dialogue import Dialogue, read_dialogues
from evals.questions.made import (
    IDENTIFIER_SETS,
    MadeIdentifier,
    read_falsifications,
    read_honest_questions,
    read_identifiers,
)
from evals.questions.recording import (
    PartialRecording,
    RecordedAnswer,
    RecordedPassage,
    Recording,
    RecordingBroken,
    RecordingHeader,
    header_of,
    read_recording,
    recording_header,
    without_documents,
    write_recording,
)
from evals.questions.sample import HANBIT, Dataset, DatasetBroken, Sample, read_dataset

__all__ = [
    "HANBIT",
    "IDENTIFIER_SETS",
    "TENANT",
    "Corpus",
    "CorpusNotLoaded",
    "CustomerAnswer",
    "Dataset",
    "DatasetBroken",
    "Dialogue",
    "MadeIdentifier",
    "PartialRecording",
    "RecordedAnswer",
    "RecordedPassage",
    "Recording",
    "RecordingBroken",
    "RecordingHeader",
    "Sample",
    "header_of",
    "load_corpus",
    "read_dataset",
    "read_dialogues",
    "read_falsifications",
    "read_honest_questions",
    "read_identifiers",
    "read_recording",
    "recording_header",
    "throwaway_settings",
    "without_documents",
    "write_recording",
]
