"""A fake vLLM server with scripted behaviour, for fault and load tests; the tests' only fake model."""

from llm_server.scripted.byte_tokenizer import CHAT_TEMPLATE, Template, byte_tokenizer, write_tokenizer
from llm_server.scripted.server import ScriptedModel, scripted_server
from llm_server.scripted.speech import Behaviour, decode, encode

__all__ = [
    "CHAT_TEMPLATE",
    "Behaviour",
    "ScriptedModel",
    "Template",
    "byte_tokenizer",
    "decode",
    "encode",
    "scripted_server",
    "write_tokenizer",
]
