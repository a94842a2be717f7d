"""The `scoreserve` command."""

import typer

from cli import api, evaluate, guide, import_, sample, train, up, worker

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
app.command()(sample.sample)
imports = typer.Typer(help="Make checkpoints of other code into models that are served.", no_args_is_help=True)
imports.command()(import_.ncsn)
app.add_typer(imports, name="import")

if __name__ == "__main__":
    app()
