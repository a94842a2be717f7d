"""`scoreserve sample`: images from a running service."""

from cli.asking import Asking, asks


@asks(out="grid.png")
def sample(asking: Asking) -> None:
    """Ask a running service for images, write them to a file, and show them. Ctrl-C cancels the job."""
    asking.run(lambda client, ask: client.sample(**ask))
