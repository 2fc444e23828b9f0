"""Faust at batch granularity: agents that receive whole fetched runs, and lose nothing.

This layer knows nothing of recommending. Its surface:

- `AppConfig`, `BatchApp`: a Faust app with batch delivery, its own stores and recovery.
- `Run`: what an agent receives; `Effects`, `OutRecord`: what it answers with.
- `Processor`: the part a role writes; `BatchApp.attach` joins it to a topic and a table.
- `Follower`: reads a whole topic into a view, in order.
- `run_app`: runs the app until SIGTERM or failure.
"""

from stream_app.faustkit.app import AppConfig, BatchApp
from stream_app.faustkit.effects import Effects, OutRecord
from stream_app.faustkit.follower import Follower
from stream_app.faustkit.keeping import Values
from stream_app.faustkit.processor import Processor
from stream_app.faustkit.run import Run
from stream_app.faustkit.runner import run_app
from stream_app.faustkit.store import Stored

__all__ = [
    "AppConfig",
    "BatchApp",
    "Effects",
    "Follower",
    "OutRecord",
    "Processor",
    "Run",
    "Stored",
    "Values",
    "run_app",
]
