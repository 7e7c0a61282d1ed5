"""Opens everything the chat API uses, in order, in one exit stack, and hands over the frozen `Services`."""

import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
from sqlalchemy.ext.asyncio import AsyncEngine

from chatbot.admission import Admission
from chatbot.answer_log import AnswerLog
from chatbot.answers import Answers
from chatbot.audit import Audit
from chatbot.guard import Guard
from chatbot.history import History
from chatbot.ledger import Ledger
from chatbot.metrics import Metrics
from chatbot.models import open_models
from chatbot.prompt import PromptBuilder, load_templates
from chatbot.redis_breaker import RedisBreaker, open_redis
from chatbot.retrieval import Retrieval
from chatbot.services import Services
from chatbot.settings import Settings
from knowledge.embedding import open_embedder
from knowledge.identity import open_authenticator
from knowledge.index import Index, open_index
from knowledge.sparse import Terms
from knowledge.withdrawals import Withdrawals


@asynccontextmanager
async def open_services(
    settings: Settings, *, engine: AsyncEngine, index: Index | None = None
) -> AsyncGenerator[Services]:
    """Open what an answer uses; `index` is given where another service of this process shares the embedded one."""
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        authenticator = await stack.enter_async_context(open_authenticator(settings.auth))
        if index is None:
            index = await stack.enter_async_context(open_passages(settings))
        redis = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value(), settings.redis))
        breaker = RedisBreaker(settings.redis.breaker)
        models = await stack.enter_async_context(open_models(settings.models, on_call=metrics.model_called))
        audit = await stack.enter_async_context(open_audit(engine, settings.audit))
        withdrawals = await open_withdrawals(engine)
        # Entered last, so left first: no answer outlives what it uses.
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(withdrawals.watch)
        answer_log = AnswerLog(redis, breaker, settings.answer_log)
        yield Services(
            settings=settings.turn,
            authenticator=authenticator,
            admission=Admission(settings.admission),
            answers=Answers(answer_log, tasks, settings.answers),
            answer_log=answer_log,
            audit=audit,
            guard=Guard(...),
            history=History(redis, breaker, settings.history),
            index=index,
            ledger=Ledger(redis, breaker, settings.ledger),
            metrics=metrics,
            models=models,
            prompts=PromptBuilder(
                load_templates(), models.tokenizer, bank=settings.bank_name, passage_tokens=settings.passage_tokens
            ),
            retrieval=Retrieval(index, settings.retrieval),
            withdrawals=withdrawals,
            now=time.time,
            on_turn_finished=(metrics.turn_finished,),
        )
        tasks.cancel_scope.cancel()
