"""Customers' ratings of answers in SQL, one row per answer; they outlive the conversation in Redis.

Deleting a conversation deletes its ratings. Only the audit record names the customer.
"""

import anyio
import msgspec
from sqlalchemy import Column, Double, String, Table, Text, and_, delete, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from chatbot.conversations.history import Feedback
from chatbot.errors import StoreUnavailable
from chatbot.tables import METADATA
from knowledge.storage import UNAVAILABLE

RATINGS = Table(
    "chatbot_feedback",
    METADATA,
    Column("answer_id", String(64), primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("rating", String(4), nullable=False),
    Column("reasons", Text, nullable=False),  # a JSON list
    Column("comment", Text, nullable=False),
    Column("at", Double, nullable=False, index=True),
    Column("conversation_id", String(64), nullable=False, index=True),
)

_DEADLINE_SECONDS = 2.0


class Ratings:
    """Writes and deletes ratings, or raises `StoreUnavailable`; `Audit.migrate_tables` creates their table."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def write(self, tenant: str, conversation_id: str, answer_id: str, feedback: Feedback) -> None:
        """Store the rating of an answer, replacing an earlier rating."""
        try:
            with anyio.fail_after(_DEADLINE_SECONDS):
                await self._replace(tenant, conversation_id, answer_id, feedback)
        except IntegrityError:
            # Another replica wrote this answer's first rating between our two statements.
            await self.write(tenant, conversation_id, answer_id, feedback)
        except UNAVAILABLE as exc:
            raise StoreUnavailable from exc

    async def _replace(self, tenant: str, conversation_id: str, answer_id: str, feedback: Feedback) -> None:
        reasons = msgspec.json.encode(feedback.reasons).decode()
        async with self._engine.begin() as connection:
            await connection.execute(delete(RATINGS).where(RATINGS.c.answer_id == answer_id))
            row = insert(RATINGS).values(
                answer_id=answer_id,
                tenant=tenant,
                rating=feedback.rating,
                reasons=reasons,
                comment=feedback.comment,
                at=feedback.at,
                conversation_id=conversation_id,
            )
            await connection.execute(row)

    async def delete_ratings(self, tenant: str, conversation_id: str) -> None:
        """Delete the ratings of a conversation that its customer deletes."""
        of_conversation = and_(RATINGS.c.tenant == tenant, RATINGS.c.conversation_id == conversation_id)
        try:
            with anyio.fail_after(_DEADLINE_SECONDS):
                async with self._engine.begin() as connection:
                    await connection.execute(delete(RATINGS).where(of_conversation))
        except UNAVAILABLE as exc:
            raise StoreUnavailable from exc
