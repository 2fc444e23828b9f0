"""`python -m stream_app.cli` is `sliceflow`."""

from stream_app.cli import main

main(prog_name="sliceflow")
