"""The conversation of a rating, by which a customer deletes it; NULL in what an earlier release writes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("chatbot_feedback", sa.Column("conversation_id", sa.String(64)))
    op.create_index("ix_chatbot_feedback_conversation_id", "chatbot_feedback", ["conversation_id"])
