"""The `scoreserve` command."""

import os

import typer

from cli import connection
from cli.commands import (
    api,
    doctor,
    evaluate,
    guide,
    import_,
    inpaint,
    jobs,
    keys,
    models,
    sample,
    study,
    train,
    up,
    worker,
)

# Before torch is loaded: its threads would wait for each other by spinning, each on a core that another process needs,
# and take a hundred times as long as one thread does alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    help="A sampling service for score-based generative models.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command()(up.up)
app.command()(api.api)
app.command()(worker.worker)
app.command()(train.train)
app.command()(guide.guide)
app.command()(evaluate.evaluate)
app.command(epilog=connection.CODES)(sample.sample)
app.command(epilog=connection.CODES)(inpaint.inpaint)
app.command(epilog=connection.CODES)(jobs.jobs)
app.command(epilog=connection.CODES)(jobs.cancel)
app.command(epilog=connection.CODES)(models.models)
app.command()(doctor.doctor)
key_commands = typer.Typer(help="Make and revoke the keys that a service asks for.", no_args_is_help=True)
key_commands.command()(keys.create)
key_commands.command("list")(keys.list_)
key_commands.command()(keys.revoke)
app.add_typer(key_commands, name="keys")
imports = typer.Typer(help="Make checkpoints of other code into models that are served.", no_args_is_help=True)
imports.command()(import_.ncsn)
app.add_typer(imports, name="import")
studies = typer.Typer(help="Measure and draw what the papers claim of score models.", no_args_is_help=True)
studies.command()(study.plane)
studies.command()(study.reproducible)
studies.command()(study.hyperparameters)
app.add_typer(studies, name="study")

if __name__ == "__main__":
    app()
