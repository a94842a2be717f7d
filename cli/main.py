"""The `scoreserve` command."""

import typer

from cli import api, sample, train, up, worker

app = typer.Typer(
    help="A sampling service for score-based generative models.", no_args_is_help=True, pretty_exceptions_enable=False
)
app.command()(up.up)
app.command()(api.api)
app.command()(worker.worker)
app.command()(train.train)
app.command()(sample.sample)

if __name__ == "__main__":
    app()
