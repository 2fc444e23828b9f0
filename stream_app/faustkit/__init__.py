"""Faust at batch granularity: processors that receive whole fetched runs, and lose nothing.

This layer knows nothing of recommending. README.md beside this file shows an app, the surface and what is promised.
"""

from stream_app.faustkit.app import AppConfig, BatchApp
from stream_app.faustkit.each import Event, Outcome, each
from stream_app.faustkit.effects import Effects, OutRecord
from stream_app.faustkit.follower import Follower
from stream_app.faustkit.keeping import Values
from stream_app.faustkit.meter import Meter
from stream_app.faustkit.processor import Processor, RunObserver
from stream_app.faustkit.run import Run
from stream_app.faustkit.runner import run_app
from stream_app.faustkit.store import Stored
from stream_app.faustkit.watchdog import Limits

__all__ = [
    "AppConfig",
    "BatchApp",
    "Effects",
    "Event",
    "Follower",
    "Limits",
    "Meter",
    "OutRecord",
    "Outcome",
    "Processor",
    "Run",
    "RunObserver",
    "Stored",
    "Values",
    "each",
    "run_app",
]
