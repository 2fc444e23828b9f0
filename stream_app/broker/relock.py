"""Writes the list of Kafka's jars and their hashes anew: `python -m stream_app.broker.relock`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from stream_app.broker.jars import LOCK_NAME, format_lock
from stream_app.broker.maven import KAFKA, resolve_jars


@click.command()
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(__file__).with_name(LOCK_NAME),
    help="File to write; the package's own list where not given.",
)
def main(output: Path) -> None:
    """Resolve Kafka's dependencies and write their coordinates and SHA-256."""
    click.echo(f"resolving {KAFKA}", err=True)
    with tempfile.TemporaryDirectory() as scratch:
        jars = resolve_jars(Path(scratch))
    text = format_lock(jars)
    if output.exists() and output.read_text("utf-8") == text:
        click.echo(f"{output.name} is up to date: {len(jars)} jars", err=True)
        return
    output.write_text(text, "utf-8")
    click.echo(f"wrote {len(jars)} jars to {output}", err=True)


if __name__ == "__main__":
    main()
