"""The audit trail and the ratings."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "chatbot_audit",
        sa.Column("writer", sa.String(32), primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("answer_id", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(200), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("prev_hmac", sa.String(64), nullable=False),
        sa.Column("hmac", sa.String(64), nullable=False),
        sa.UniqueConstraint("answer_id", "kind"),
    )
    op.create_index("ix_chatbot_audit_at", "chatbot_audit", ["at"])
    op.create_table(
        "chatbot_feedback",
        sa.Column("answer_id", sa.String(64), primary_key=True),
        sa.Column("tenant", sa.String(200), nullable=False),
        sa.Column("rating", sa.String(4), nullable=False),
        sa.Column("reasons", sa.Text, nullable=False),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("conversation_id", sa.String(64), nullable=False),
    )
    op.create_index("ix_chatbot_feedback_at", "chatbot_feedback", ["at"])
    op.create_index("ix_chatbot_feedback_conversation_id", "chatbot_feedback", ["conversation_id"])
