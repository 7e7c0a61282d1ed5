"""Read an OpenAI chat completion request as a question to this bank (pure).

- The last message is the question and must be the customer's. The earlier messages are the conversation as the client
  reports it; they are not trusted and not stored.
- Rejected, because they would instruct the bank's model: `system` and `developer` messages. Rejected, because the
  answer could not fulfil them: tools and functions, images, audio and files, `n` above 1, `stop`, `logprobs`, a
  `response_format` other than text, web search.
- `max_completion_tokens` (or `max_tokens`) limits the answer, up to the bank's own limit.
- Ignored: `temperature`, `top_p`, `seed`, penalties, `user` and every other field. The bank decides how answers are
  sampled, and records it in the audit trail.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field, JsonValue, StringConstraints

from chatbot.api.customer_text import Composed
from chatbot.errors import Unsupported
from chatbot.questions import ClientMessage

Count = Annotated[int, Field(ge=1)]


class ContentPart(BaseModel):
    """One part of a message; only text is accepted."""

    type: str
    text: Composed = ""


class ChatMessage(BaseModel):
    """One message in OpenAI's format; a message from a reply of this API may be sent back unchanged."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Composed | Annotated[list[ContentPart], Field(fail_fast=True)] | None = None
    tool_calls: JsonValue = None
    function_call: JsonValue = None


class StreamOptions(BaseModel):
    """Whether the last chunk reports the usage."""

    include_usage: bool | None = None


class CompletionRequest(BaseModel):
    """The body of `POST /v1/chat/completions`."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Count | None = None
    modalities: Annotated[list[str], Field(fail_fast=True)] | None = None
    response_format: ContentPart | None = None
    tools: JsonValue = None
    functions: JsonValue = None
    stop: JsonValue = None
    logprobs: JsonValue = None
    audio: JsonValue = None
    web_search_options: JsonValue = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream reports the usage."""
        return self.stream_options is not None and self.stream_options.include_usage is True


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionInRequest:
    """The question, the index of its message, the messages before it, and the limit of the answer's tokens."""

    text: str
    position: int
    earlier: tuple[ClientMessage, ...]
    max_answer_tokens: int | None


_REJECTED_PARAMETERS: Final[Mapping[str, str]] = {
    "tools": "The bank's assistant calls no tools",
    "functions": "The bank's assistant calls no functions",
    "stop": "Stop sequences are not served: an answer ends where its checked sentences end",
    "logprobs": "Probabilities are not given: text is shown only once it is checked",
    "audio": "Answers are text only",
    "web_search_options": "Answers are drawn from the bank's own documents only",
}


def read_request(request: CompletionRequest) -> QuestionInRequest:
    """Return the question of the request.

    Raises:
        Unsupported: the request needs something that this API does not do; the message names it.
    """
    _check_parameters(request)
    messages = [_client_message(message, position) for position, message in enumerate(request.messages)]
    if messages[-1].role != "user":
        raise Unsupported("The last message must be the customer's question (role 'user')", param="messages")
    return QuestionInRequest(
        text=messages[-1].text,
        position=len(messages) - 1,
        earlier=tuple(messages[:-1]),
        max_answer_tokens=request.max_completion_tokens or request.max_tokens,
    )


def _check_parameters(request: CompletionRequest) -> None:
    for name, reason in _REJECTED_PARAMETERS.items():
        if getattr(request, name):
            raise Unsupported(reason, param=name)
    if request.n is not None and request.n > 1:
        raise Unsupported("One answer per request: each is checked and recorded", param="n")
    if set(request.modalities or ()) - {"text"}:
        raise Unsupported("Answers are text only", param="modalities")
    if request.response_format is not None and request.response_format.type != "text":
        raise Unsupported("Answers are checked sentences, never JSON", param="response_format")


def _client_message(message: ChatMessage, position: int) -> ClientMessage:
    param = f"messages.{position}"
    match message.role:
        case "system" | "developer":
            reason = f"'{message.role}' messages are not accepted: only the bank instructs its assistant"
            raise Unsupported(reason, param=f"{param}.role")
        case "tool" | "function":
            raise Unsupported("The bank's assistant calls no tools", param=f"{param}.role")
        case role:
            if message.tool_calls or message.function_call:
                raise Unsupported("The bank's assistant calls no tools", param=f"{param}.tool_calls")
            return ClientMessage(role, _text_of(message.content, f"{param}.content"))


def _text_of(content: str | Sequence[ContentPart] | None, param: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if part.type != "text":
            raise Unsupported(f"Content of type '{part.type[:40]}' is not read: questions are text only", param=param)
    return "\n".join(part.text for part in content)
