"""The schema of the chatbot's SQL tables (SQLite and PostgreSQL), which `chatbot.audit` and `chatbot.conversations` add
their tables to."""

from sqlalchemy import MetaData

from knowledge.storage import Schema

METADATA = MetaData()
SCHEMA = Schema(owner="chatbot", package="chatbot", tables=METADATA)
