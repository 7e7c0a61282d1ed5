"""What a model once said to every question of a data set, with the passages it was shown: a file to score again.

JSON lines: one of how it was made, one a passage, one a question. Nothing in it but the model's words came from a
model, so the checks of today are put to the answers of then; a changed prompt or document makes it stale.
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
    """The file is no recording; the message says why."""


class Made(msgspec.Struct, frozen=True, kw_only=True, tag="made"):
    """How a recording was made; `documents` is a digest of the sample documents' bytes."""

    dataset: str
    model: str
    profile: str
    prompt_version: str
    documents: str


class Shown(msgspec.Struct, frozen=True, kw_only=True, tag="passage", omit_defaults=True):
    """A passage that the model was shown."""

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
        """Return it as the checks take it."""
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


class Spoken(msgspec.Struct, frozen=True, kw_only=True, tag="answer", omit_defaults=True):
    """A question's evidence and what the model said to it; `said` is None where it was not asked to answer.

    `dense` and `terms` are the two scores of every hit, `probes` the model's probabilities of "yes", `unknown` the
    share of the question's topics that no passage names, `repair` each quote that the model was to choose from when
    its answer was withheld whole, with the share that it gave it.
    """

    id: str
    passages: tuple[tuple[str, int, int], ...] = ()
    dense: tuple[float, ...] = ()
    terms: tuple[float, ...] = ()
    probes: tuple[float, ...] = ()
    unknown: float = 0.0
    wording: str = ""
    said: str | None = None
    repair: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A file of recorded answers, read."""

    made: Made
    passages: Mapping[tuple[str, int, int], Shown]
    answers: tuple[Spoken, ...]

    def shown_to(self, spoken: Spoken) -> tuple[Passage, ...]:
        """Return the passages behind an answer, best first."""
        return tuple(self.passages[key].passage() for key in spoken.passages)


def made(dataset: Dataset, *, model: str, profile: str) -> Made:
    """Return what a recording of today would say of itself."""
    return Made(
        dataset=dataset.name,
        model=model,
        profile=profile,
        prompt_version=load_templates().version,
        documents=documents_digest(dataset.folder / "documents"),
    )


def documents_digest(folder: Path) -> str:
    """Return a digest that changes with any document's name or bytes."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return digest.hexdigest()[:16]


class Part:
    """A recording in the making, in a file: every answer is kept as it comes, so that a stopped one goes on."""

    def __init__(self, path: Path, made: Made) -> None:
        self.answers: dict[str, Spoken] = {}
        self._path = path
        self._made = made
        self._passages: dict[tuple[str, int, int], Shown] = {}
        before = self._before()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(made) + b"\n")
        if before is not None:
            for spoken in before.answers:
                self.keep(spoken, before.passages)

    def keep(self, spoken: Spoken, passages: Mapping[tuple[str, int, int], Shown]) -> None:
        """Add an answer and those of its passages that are not there yet."""
        fresh = {key: passages[key] for key in spoken.passages if key not in self._passages}
        self._passages |= fresh
        self.answers[spoken.id] = spoken
        lines: Iterable[Shown | Spoken] = (*fresh.values(), spoken)
        with self._path.open("ab") as file:
            file.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))

    def whole(self, ids: Iterable[str]) -> Recording:
        """Return the recording of these questions, in their order."""
        return Recording(
            made=self._made, passages=dict(self._passages), answers=tuple(self.answers[one] for one in ids)
        )

    def _before(self) -> Recording | None:
        """Return what is there of the same recording; a last line that was cut off is none."""
        if not self._path.exists():
            return None
        self._path.write_bytes(self._path.read_bytes().rpartition(b"\n")[0] + b"\n")
        there = read_recording(self._path)
        return there if there.made == self._made else None


def write_recording(recording: Recording, path: Path) -> None:
    """Write a recording, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines: Iterable[Made | Shown | Spoken] = (recording.made, *recording.passages.values(), *recording.answers)
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def read_recording(path: Path) -> Recording:
    """Read a recording.

    Raises:
        RecordingBroken: it is none, or an answer names a passage that it does not hold.
    """
    decoder = msgspec.json.Decoder(Made | Shown | Spoken)
    try:
        lines = [decoder.decode(line) for line in path.read_bytes().split(b"\n") if line.strip()]
    except (OSError, msgspec.DecodeError) as exc:
        raise RecordingBroken(f"{path} is no recording of `evals record`: {exc}") from exc
    headers = [line for line in lines if isinstance(line, Made)]
    passages = {line.key: line for line in lines if isinstance(line, Shown)}
    answers = tuple(line for line in lines if isinstance(line, Spoken))
    if len(headers) != 1 or any(key not in passages for spoken in answers for key in spoken.passages):
        raise RecordingBroken(f"{path}: one line says how it was made, and every passage of an answer is there")
    return Recording(made=headers[0], passages=passages, answers=answers)
