"""`python -m evals.formats FOLDER`: how the product reads every file of a folder."""

import typer

from evals.formats.formats import main

typer.run(main)
