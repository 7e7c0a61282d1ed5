"""A stand-in for vLLM with its API and a scripted behaviour, for faults and load; the only stand-in of the tests."""

from llm_server.scripted.byte_tokenizer import CHAT_TEMPLATE, Template, byte_tokenizer
from llm_server.scripted.server import ScriptedModel, scripted_server, write_tokenizer
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
