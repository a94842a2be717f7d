"""The `scoreserve` command."""

import io
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from cli import connection
from cli.commands import (
    api,
    completions,
    doctor,
    evaluate,
    import_,
    jobs,
    models,
    sample,
    study,
    train,
    up,
    worker,
)
from cli.commands.access import keys, operator
from cli.commands.derived import distill, guide, republish
from cli.extras import needs
from cli.help import FIRST, example
from cli.help.usage import Commands

# Before torch is loaded: its threads would wait for each other by spinning, each on a core that another process needs,
# and take a hundred times as long as one thread does alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# What an output cannot say, as one of ASCII, is no reason to end: a ? stands for it.
for output in (sys.stdout, sys.stderr):
    if isinstance(output, io.TextIOWrapper):
        output.reconfigure(errors="replace")
# Kubernetes tells all that runs beside a service where that is, and for one that is named scoreserve, or
# scoreserve-metrics, it does so under the names of settings of ours: SCORESERVE_PORT=tcp://10.0.0.1:8000.
for name in ("SCORESERVE_PORT", "SCORESERVE_METRICS_PORT", "SCORESERVE_API_METRICS_PORT"):
    if "://" in os.environ.get(name, ""):
        del os.environ[name]

app = typer.Typer(
    cls=Commands,
    invoke_without_command=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"scoreserve {version('scoreserve')}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """A sampling service for score-based generative models."""
    if context.invoked_subcommand is None:
        typer.echo(FIRST)


app.command(epilog=example("up"))(needs("server", "worker")(up.up))
app.command(epilog=example("api"))(needs("server")(api.api))
app.command(epilog=example("worker"))(needs("worker")(worker.worker))
app.command(epilog=example("train"))(needs("train")(train.train))
app.command(epilog=example("distill"))(needs("train")(distill.distill))
app.command(epilog=example("guide"))(needs("train")(guide.guide))
app.command(epilog=example("republish"))(needs("queue")(republish.republish))
app.command(epilog=example("evaluate"))(needs("train")(evaluate.evaluate))
app.command(epilog=example("sample", connection.CODES))(sample.sample)
app.command(epilog=example("inpaint", connection.CODES))(completions.inpaint)
app.command(epilog=example("upscale", connection.CODES))(completions.upscale)
app.command(epilog=example("colorize", connection.CODES))(completions.colorize)
app.command(epilog=example("jobs", connection.CODES))(jobs.jobs)
app.command(epilog=example("cancel", connection.CODES))(jobs.cancel)
app.command(epilog=example("models", connection.CODES))(models.models)
app.command(epilog=example("samplers", connection.CODES))(models.samplers)
app.command(epilog=example("doctor"))(needs("queue")(doctor.doctor))
key_commands = typer.Typer(help="Make, change and revoke the keys that a service asks for.", no_args_is_help=True)
key_commands.command(epilog=example("keys create"))(needs("queue")(keys.create))
key_commands.command("list", epilog=example("keys list"))(needs("queue")(keys.list_))
for name, command in (
    ("usage", keys.usage),
    ("change", keys.change),
    ("suspend", keys.suspend),
    ("resume", keys.resume),
    ("revoke", keys.revoke),
    ("open", keys.open_),
):
    key_commands.command(name, epilog=example(f"keys {name}"))(needs("queue")(command))
app.add_typer(key_commands, name="keys")
operators = typer.Typer(help="List and cancel everybody's jobs, and drain models.", no_args_is_help=True)
operators.command(epilog=example("operator jobs"))(needs("queue")(operator.jobs))
operators.command(epilog=example("operator cancel"))(needs("queue")(operator.cancel))
operators.command(epilog=example("operator drain"))(needs("queue")(operator.drain))
operators.command(epilog=example("operator resume"))(needs("queue")(operator.resume))
operators.command(epilog=example("operator drained"))(needs("queue")(operator.drained))
app.add_typer(operators, name="operator")
imports = typer.Typer(help="Make checkpoints of other code into models that are served.", no_args_is_help=True)
imports.command(epilog=example("import ncsn"))(needs("worker")(import_.ncsn))
imports.command(epilog=example("import edm"))(needs("worker")(import_.edm))
imports.command("score_sde", epilog=example("import score_sde"))(needs("worker")(import_.score_sde))
imports.command(epilog=example("import guided-diffusion"))(needs("worker")(import_.guided_diffusion))
imports.command(epilog=example("import diffusers"))(needs("worker")(import_.diffusers))
imports.command(epilog=example("import module"))(needs("worker")(import_.module))
imports.command(epilog=example("import exported"))(needs("worker")(import_.exported))
app.add_typer(imports, name="import")
studies = typer.Typer(help="Measure and draw what the papers claim of score models.", no_args_is_help=True)
studies.command(epilog=example("study plane"))(needs("train")(study.plane))
studies.command(epilog=example("study objectives"))(needs("train")(study.objectives))
studies.command(epilog=example("study trivial"))(needs("train")(study.trivial))
studies.command(epilog=example("study noise"))(needs("train")(study.noise))
studies.command(epilog=example("study filmstrip"))(needs("train")(study.filmstrip))
studies.command(epilog=example("study reproducible"))(needs("train")(study.reproducible))
studies.command(epilog=example("study hyperparameters"))(needs("train")(study.hyperparameters))
app.add_typer(studies, name="study")

if __name__ == "__main__":
    app()
