"""The chatbot's own tables (SQLite and PostgreSQL); `chatbot.audit` and `chatbot.ratings` say what is in them."""

from sqlalchemy import MetaData

from knowledge.schema import Schema

METADATA = MetaData()
SCHEMA = Schema(owner="chatbot", tables=METADATA)
