"""The chatbot's own tables (SQLite and PostgreSQL); `chatbot.audit` and `chatbot.conversations.ratings` say what is in
them."""

from sqlalchemy import MetaData

from knowledge.storage import Schema

METADATA = MetaData()
SCHEMA = Schema(owner="chatbot", package="chatbot", tables=METADATA)
