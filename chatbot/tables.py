"""The schema of the chatbot's SQL tables (SQLite and PostgreSQL), filled by `chatbot.audit` and
`chatbot.conversations`."""

from sqlalchemy import MetaData

from knowledge.storage import Schema

METADATA = MetaData()
SCHEMA = Schema(owner="chatbot", package="chatbot", tables=METADATA)
