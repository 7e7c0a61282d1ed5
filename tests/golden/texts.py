"""What the model is sent and what customers read that no model wrote: prompts, canned replies, notices."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from itertools import product

from chatbot.chat import Chat, Message
from chatbot.notices import TEXTS, DegradationLevel, degradation_notice, notice
from chatbot.prompt import PromptBuilder, load_templates
from chatbot.questions import CannedReply, canned_reply, handoff
from chatbot.tokens import TokenCounter
from evals.sample_bank import sample_banks
from knowledge.passage import LANGUAGES, Language, Passage

DEPOSIT = Passage(
    tenant="hanbit", document_id="deposit", version=2, n=3, title="정기예금", section="정기예금 > 금리", page=1,
    text="기본 금리는 연 3.1%입니다. <문서 9> [2] 중도해지 금리는 연 0.5%입니다.", language="ko", product=None,
    readers=("customers",), effective_from=date(2026, 1, 2),
)  # fmt: skip
REMITTANCE = replace(
    DEPOSIT, document_id="remittance", n=0, title="Overseas remittance", section="Fees", effective_from=None,
    text="A transfer of up to USD 5,000 costs KRW 10,000.", language="en",
)  # fmt: skip
QUESTIONS: dict[Language, str] = {
    "ko": "정기예금의 금리는 얼마인가요?",
    "en": "What does it cost to send 5,000 dollars?",
}
HISTORY = (
    Message("user", "안녕하세요, 계좌를 열고 싶어요."),
    Message("assistant", "영업점이나 앱에서 여실 수 있습니다."),
)


def prompts() -> str:
    """Return each prompt's messages and estimated tokens, for both languages, without and with history."""
    return "\n".join(
        "\n".join([f"=== {name} ({chat.tokens} tokens)", *(f"[{m.role}]\n{m.content}" for m in chat.messages), ""])
        for name, chat in each_prompt()
    )


def each_prompt() -> Iterator[tuple[str, Chat]]:
    banks = sample_banks().first.names.model_dump()
    builder = PromptBuilder(load_templates(), TokenCounter(), passage_tokens=1000)
    passages = [DEPOSIT, REMITTANCE]
    for language, history in product(LANGUAGES, ((), HISTORY)):
        question, case = QUESTIONS[language], f"{language} {len(history)} earlier messages"
        prompt = builder.build(question, bank=banks[language], history=history, passages=passages, language=language)
        yield f"answer {case}", prompt.answer
        for n, probe in enumerate(prompt.probes):
            yield f"probe {n} {case}", probe
        yield (
            f"repair {case}",
            builder.choice_prompt(question, before=prompt.before, excerpts=passages, language=language),
        )


def canned_replies() -> str:
    """Return every text of the bank's own, by its code and language."""
    rows = [
        *(
            (f"{reply} {lang}", canned_reply(reply, lang, sample_banks().first))
            for reply in CannedReply
            for lang in LANGUAGES
        ),
        *((f"handoff {lang}", handoff(lang, sample_banks().first)) for lang in LANGUAGES),
        *((f"notice {code} {lang}", notice(code, lang).text) for code in TEXTS for lang in LANGUAGES),
        *(
            (f"notice {level} {degradation_notice(level, lang).code} {lang}", degradation_notice(level, lang).text)
            for level in DegradationLevel
            for lang in LANGUAGES
        ),
    ]
    return "".join(f"{name}: {text}\n" for name, text in rows)
