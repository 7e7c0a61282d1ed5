"""`python -m llm_server.scripted`: the scripted model server as a separate process."""

import typer

from llm_server.scripted.server import main

app = typer.Typer()
app.command()(main)

if __name__ == "__main__":
    app()
