"""The contracts of the release before, in the files beside this one, byte for byte.

They hold what others rely on and no type checker sees: clients (OpenAPI, events, error codes), dashboards and scalers
(metrics), operators (settings), the recorded evaluations (prompts), the bank (its own texts).
`pytest tests/golden --write-golden` writes them anew where a change is meant.
"""

from collections.abc import Callable

import pytest

from chatbot.errors import ChatError
from chatbot.metrics import Metrics as ChatMetrics
from chatbot.settings import Settings as ChatSettings
from ingest.errors import IngestError
from ingest.metrics import Metrics as StaffMetrics
from ingest.settings import Settings as StaffSettings
from tests.conftest import Golden
from tests.golden import contracts, texts

CONTRACTS: dict[str, Callable[[], str]] = {
    "openapi.chatbot.json": contracts.chat_openapi,
    "openapi.ingest.json": contracts.staff_openapi,
    "errors.chatbot.jsonl": lambda: contracts.error_codes(ChatError),
    "errors.ingest.jsonl": lambda: contracts.error_codes(IngestError),
    "events.jsonl": contracts.events,
    "metrics.chatbot.jsonl": lambda: contracts.metrics(ChatMetrics()),
    "metrics.ingest.jsonl": lambda: contracts.metrics(StaffMetrics()),
    "settings.chatbot.jsonl": lambda: contracts.settings(ChatSettings),
    "settings.ingest.jsonl": lambda: contracts.settings(StaffSettings),
    "canned_replies.txt": texts.canned_replies,
}


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_contract_is_what_it_was(name: str, golden: Golden) -> None:
    golden(name, CONTRACTS[name]())


def test_the_prompts_are_what_they_were(golden: Golden) -> None:
    golden("prompts.txt", texts.prompts())
