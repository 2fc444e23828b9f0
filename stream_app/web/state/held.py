"""All parts of what the server knows, together."""

from __future__ import annotations

from dataclasses import dataclass, field

from index import ItemIndex
from stream_app.item_queries import ItemQueries
from stream_app.item_view import ItemView
from stream_app.settings import Settings
from stream_app.web.state.catalogue import Catalogue
from stream_app.web.state.dead_letters import DeadLetters
from stream_app.web.state.flow import Flow
from stream_app.web.state.lists import NewestLists
from stream_app.web.state.model_facts import ModelFacts
from stream_app.web.state.running import Running
from stream_app.web.state.trends import HeldTrends
from stream_app.web.state.users import NewestUsers


@dataclass
class Held:
    """The parts; `is_caught_up` tells that everything is read that was there at the start."""

    settings: Settings
    model: ModelFacts
    item_view: ItemView
    trends: HeldTrends
    flow: Flow
    lists: NewestLists
    users: NewestUsers
    running: Running
    catalogue: Catalogue = field(default_factory=Catalogue)
    dead_letters: DeadLetters = field(default_factory=DeadLetters)
    is_caught_up: bool = False

    @property
    def index(self) -> ItemIndex:
        """The items' vectors."""
        return self.item_view.index

    @property
    def items(self) -> ItemQueries:
        """Questions to the index; they compute, so ask them in an executor."""
        return ItemQueries(self.index)
