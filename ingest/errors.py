"""The staff API's errors as one tree; each class has the `code`, `status` and `retryable` that staff see.

IngestError
├── BadRequest             400 bad_request          the request is malformed
├── Unauthenticated        401 unauthenticated      the token is missing or not accepted
├── Forbidden              403 forbidden            the role does not allow this
│   └── SecondPersonNeeded     403 second_person        neither the uploader nor the last editor may decide
├── NotFound               404 not_found            it does not exist, or belongs to another tenant
├── MethodNotAllowed       405 method_not_allowed   the path does not support the method
├── DuplicateContent       409 duplicate_content    the named document has the same bytes with other metadata or id
├── WrongState             409 wrong_state          the version's state does not allow this
│   ├── Suspicious             409 suspicious           a passage instructs the model, or a formula has no value
│   └── DatesChanged           409 dates_changed        its dates or title changed since the approver saw them
├── OriginalChanged        409 original_changed     the stored bytes differ from the uploaded ones
├── CannotShow             422 cannot_show          a page of the original cannot be rendered or read
├── TooLarge               413 too_large            the upload exceeds the size limit
├── Unprocessable          422 invalid_request      a field is missing or out of range
├── StorageFull            507 storage_full         no space for the original
└── Unavailable            503 unavailable          part of the service is unavailable
    ├── CatalogueUnavailable   503 catalogue_unavailable    SQL is unavailable
    ├── IndexUnavailable       503 index_unavailable        the passage index is unavailable
    └── StorageUnavailable     503 storage_unavailable      the store of originals is unavailable
An unreadable file is not an API error: `ingest.parsing.parsed.Unreadable` sets the version's state.
"""

from typing import ClassVar


class IngestError(Exception):
    """A failure with a message for staff."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong on our side"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title


class BadRequest(IngestError):
    code, status, title = "bad_request", 400, "The request cannot be understood"


class Unauthenticated(IngestError):
    code, status, title = "unauthenticated", 401, "Sign in to continue"


class Forbidden(IngestError):
    code, status, title = "forbidden", 403, "This is not allowed for your role"


class SecondPersonNeeded(Forbidden):
    code, title = "second_person", "A second person must decide"


class NotFound(IngestError):
    code, status, title = "not_found", 404, "Not found"


class MethodNotAllowed(IngestError):
    code, status, title = "method_not_allowed", 405, "Method not allowed for this address"


class DuplicateContent(IngestError):
    """The same bytes already exist, as `version` of `document_id`; `is_over`: that version has expired."""

    code, status, title = "duplicate_content", 409, "This file was already uploaded with other metadata or document id"

    def __init__(self, document_id: str, version: int, *, is_over: bool = False) -> None:
        detail = f"the same file is already version {version} of {document_id!r}, with other metadata or document id"
        if is_over:
            detail += "; that version has ended: upload with again=true to make a new version"
        super().__init__(detail)
        self.document_id = document_id
        self.version = version


class WrongState(IngestError):
    code, status, title = "wrong_state", 409, "The current state does not allow this"


class Suspicious(WrongState):
    code, title = "suspicious", "A passage contains an instruction to the model"


class DatesChanged(WrongState):
    code, title = "dates_changed", "The dates or the title were changed after they were shown"


class TooLarge(IngestError):
    code, status, title = "too_large", 413, "The upload is larger than the limit"


class Unprocessable(IngestError):
    code, status, title = "invalid_request", 422, "A field is missing or out of range"


class CannotShow(IngestError):
    code, status, title = "cannot_show", 422, "This page cannot be shown"


class OriginalChanged(IngestError):
    """The stored bytes of an original differ from the uploaded, approved ones: another program writes to the store."""

    code, status, title = "original_changed", 409, "The original differs from the uploaded file"


class StorageFull(IngestError):
    code, status, title, retryable = "storage_full", 507, "No space left for documents", True


class Unavailable(IngestError):
    code, status, title, retryable = "unavailable", 503, "Not available right now", True


class CatalogueUnavailable(Unavailable):
    code, title = "catalogue_unavailable", "The catalogue cannot be reached right now"


class IndexUnavailable(Unavailable):
    code, title = "index_unavailable", "The passage index cannot be reached right now"


class StorageUnavailable(Unavailable):
    code, title = "storage_unavailable", "The document store cannot be used right now"
