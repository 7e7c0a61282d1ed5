"""A model's recorded answers to a data set's questions, with the passages of its prompts, for later rescoring.

JSON lines: a header, then passages and answers. The recorded text is unchecked, so the current checks can be applied to
it; a changed prompt or document makes a recording stale.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from chatbot.prompt import load_templates
from evals.questions.sample import Dataset
from knowledge.passage import Language, Passage


class RecordingBroken(Exception):
    """The file is not a valid recording; the message contains the reason."""


class RecordingHeader(msgspec.Struct, frozen=True, kw_only=True, tag="made"):
    """How a recording was made; `documents` is a digest of the documents' names and bytes.

    `embedder` is empty in recordings made before the field existed.
    """

    dataset: str
    model: str
    profile: str
    prompt_version: str
    documents: str
    embedder: str = ""


class RecordedPassage(msgspec.Struct, frozen=True, kw_only=True, tag="passage", omit_defaults=True):
    """A passage of a recorded prompt."""

    document_id: str
    version: int
    n: int
    title: str
    section: str
    text: str
    language: Language
    page: int | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        return self.document_id, self.version, self.n

    def passage(self) -> Passage:
        """Return the passage in the form that the checks use."""
        return Passage(
            tenant="",
            document_id=self.document_id,
            version=self.version,
            n=self.n,
            title=self.title,
            section=self.section,
            page=self.page,
            text=self.text,
            language=self.language,
            product=None,
            readers=(),
            effective_from=None,
        )


class RecordedAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="answer", omit_defaults=True):
    """A question's evidence and the model's answer."""

    id: str
    passages: tuple[tuple[str, int, int], ...] = ()
    dense: tuple[float, ...] = ()  # the cosine of each hit
    terms: tuple[float, ...] = ()  # the term score of each hit
    probes: tuple[float, ...] = ()  # the model's probabilities of "yes"
    unknown: float = 0.0  # the share of the question's topics missing from the passage that has most of them
    wording: str = ""  # the words that select the quoted units
    model_text: str | None = msgspec.field(name="said", default=None)  # None if the model was not asked for an answer
    scores: tuple[float, ...] = ()  # the fused score of each hit
    choices: tuple[tuple[float, ...], ...] = ()  # the model's probabilities of each unit's number, in both orders
    standalone: str = ""  # the question rewritten to be understood alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The content of a recording file."""

    header: RecordingHeader
    passages: Mapping[tuple[str, int, int], RecordedPassage]
    answers: tuple[RecordedAnswer, ...]

    def passages_of(self, answer: RecordedAnswer) -> tuple[Passage, ...]:
        """Return the passages of an answer's prompt, best first."""
        return tuple(self.passages[key].passage() for key in answer.passages)


def without_documents(sample_id: str) -> str:
    """Return the id of a question's near miss: its evidence without the documents that answer it."""
    return f"{sample_id}-without"


def recording_header(dataset: Dataset, *, model: str, profile: str, embedder: str = "") -> RecordingHeader:
    """Return the header for a new recording."""
    return RecordingHeader(
        dataset=dataset.name,
        model=model,
        profile=profile,
        prompt_version=load_templates().version,
        documents=documents_digest(dataset.folder),
        embedder=embedder,
    )


def documents_digest(dataset: Path) -> str:
    """Return a digest of a data set's documents or corpus; any change of a document's name or bytes changes it."""
    documents = dataset / "documents"
    folder, pattern = (documents, "**/*") if documents.is_dir() else (dataset, "corpus.jsonl")
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.glob(pattern) if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return digest.hexdigest()[:16]


class PartialRecording:
    """A recording in progress; each answer is appended to a file, so that an interrupted recording can continue."""

    def __init__(self, path: Path, header: RecordingHeader) -> None:
        self.answers: dict[str, RecordedAnswer] = {}
        self._path = path
        self._header = header
        self._passages: dict[tuple[str, int, int], RecordedPassage] = {}
        former = self._read_former()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(header) + b"\n")
        if former is not None:
            for answer in former.answers:
                self.append(answer, former.passages)

    def append(self, answer: RecordedAnswer, passages: Mapping[tuple[str, int, int], RecordedPassage]) -> None:
        """Add an answer, and those of its passages that are not in the file yet."""
        new = {key: passages[key] for key in answer.passages if key not in self._passages}
        self._passages |= new
        self.answers[answer.id] = answer
        lines: Iterable[RecordedPassage | RecordedAnswer] = (*new.values(), answer)
        with self._path.open("ab") as file:
            file.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))

    def recording_of(self, ids: Iterable[str]) -> Recording:
        """Return the recording of these questions in order, each after its near miss (`without_documents`)."""
        answer_ids = (answer_id for sample_id in ids for answer_id in (without_documents(sample_id), sample_id))
        answers = tuple(self.answers[answer_id] for answer_id in answer_ids if answer_id in self.answers)
        return Recording(header=self._header, passages=dict(self._passages), answers=answers)

    def _read_former(self) -> Recording | None:
        """Return the file's content if it is of the same recording; drop a truncated last line."""
        if not self._path.exists():
            return None
        self._path.write_bytes(self._path.read_bytes().rpartition(b"\n")[0] + b"\n")
        former = read_recording(self._path)
        return former if former.header == self._header else None


def header_of(path: Path) -> RecordingHeader | None:
    """Return the header of a finished or partial recording; None if the first line is not a header."""
    with path.open("rb") as file:
        try:
            return msgspec.json.decode(file.readline(), type=RecordingHeader)
        except msgspec.DecodeError:
            return None


def write_recording(recording: Recording, path: Path) -> None:
    """Write a recording, one JSON object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines: list[msgspec.Struct] = [recording.header, *recording.passages.values(), *recording.answers]
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def read_recording(path: Path) -> Recording:
    """Read a recording.

    Raises:
        RecordingBroken: the file is not a recording, or lacks a passage that an answer names.
    """
    decoder = msgspec.json.Decoder(RecordingHeader | RecordedPassage | RecordedAnswer)
    try:
        lines = [decoder.decode(line) for line in path.read_bytes().split(b"\n") if line.strip()]
    except (OSError, msgspec.DecodeError) as exc:
        raise RecordingBroken(f"{path} is not a recording of `evals record`: {exc}") from exc
    headers = [line for line in lines if isinstance(line, RecordingHeader)]
    passages = {line.key: line for line in lines if isinstance(line, RecordedPassage)}
    answers = tuple(line for line in lines if isinstance(line, RecordedAnswer))
    if len(headers) != 1 or any(key not in passages for answer in answers for key in answer.passages):
        raise RecordingBroken(f"{path} must have exactly one header, and every passage that an answer names")
    return Recording(header=headers[0], passages=passages, answers=answers)
