"""The table of the API: routing and description are both made from it."""

from __future__ import annotations

from typing import Final

from stream_app.web import answers, page_files
from stream_app.web.answering import ListQuery
from stream_app.web.api import events, health, items, live, model, recommendations, sessions, users
from stream_app.web.calls import Route

EVENT_STREAM: Final = "text/event-stream"

LIST: Final = Route(
    method="GET",
    path="/recommendations/{user_id}",
    summary="The newest list of a user; what is popular for one without a list.",
    handler=recommendations.of_user,
    query=ListQuery,
    answer=answers.ListAnswer,
)

LISTS: Final = (
    LIST,
    Route(
        method="POST",
        path="/events",
        summary="Send one event or up to 500; answered once Kafka has them.",
        handler=events.send,
        body=events.EventsBody,
        answer=answers.Accepted,
        status=202,
        cost=2.0,
    ),
    Route(
        method="POST",
        path="/sessions/recommendations",
        summary="A list for somebody without a name, from the items or events of a session; nothing is kept.",
        handler=sessions.recommend,
        body=answers.Session,
        answer=answers.ListAnswer,
        cost=20.0,
    ),
)

USERS: Final = (
    Route(
        method="GET",
        path="/users",
        summary="Users that were active last.",
        handler=users.newest,
        query=users.UsersQuery,
        answer=answers.UsersAnswer,
        cost=5.0,
    ),
    Route(
        method="GET",
        path="/users/{user_id}",
        summary="A user's timeline, slices and profile.",
        handler=users.one,
        answer=answers.UserAnswer,
        cost=5.0,
    ),
    Route(
        method="DELETE",
        path="/users/{user_id}",
        summary="Erase a user: answered with the place in the log once Kafka has it; the roles then forget the user.",
        handler=users.erase,
        answer=answers.Placed,
        status=202,
        cost=5.0,
    ),
    Route(
        method="GET",
        path="/users/{user_id}/stream",
        summary="A user's lists and slices as they change (events `list`, `slice`, `erased`, `ping`).",
        handler=recommendations.stream,
        content_type=EVENT_STREAM,
        cost=5.0,
    ),
)

ITEMS: Final = (
    Route(
        method="GET",
        path="/items",
        summary="Part of the catalogue: newest, cold or popular items.",
        handler=items.browse,
        query=items.ItemsQuery,
        answer=answers.ItemsAnswer,
        cost=5.0,
    ),
    Route(
        method="GET",
        path="/items/{item_id}",
        summary="What is known of an item.",
        handler=items.one,
        answer=answers.ItemAnswer,
    ),
    Route(
        method="GET",
        path="/items/{item_id}/similar",
        summary="The items nearest to one.",
        handler=items.similar,
        query=items.SimilarQuery,
        answer=answers.SimilarAnswer,
        cost=5.0,
    ),
    Route(
        method="GET",
        path="/search",
        summary="Items by text, ordered by a user's taste where one is named.",
        handler=items.search,
        query=items.SearchQuery,
        answer=answers.SearchAnswer,
        cost=5.0,
    ),
)

RUNNING: Final = (
    Route(
        method="GET",
        path="/live",
        summary="Everything as it comes (events `figures`, `event`, `list`, `dead-letter`, `ping`).",
        handler=live.stream,
        content_type=EVENT_STREAM,
        cost=5.0,
    ),
    Route(method="GET", path="/flow", summary="How much flows.", handler=live.flow, answer=answers.FlowAnswer),
    Route(
        method="GET",
        path="/dead-letters",
        summary="The newest records that were refused, and why.",
        handler=live.dead_letters,
        query=live.DeadLettersQuery,
        answer=answers.DeadLettersAnswer,
    ),
    Route(
        method="GET",
        path="/model",
        summary="The model that is served.",
        handler=model.facts,
        answer=answers.ModelAnswer,
    ),
    Route(
        method="GET",
        path="/healthz",
        summary="The process answers.",
        handler=health.alive,
        answer=answers.Health,
        is_public=True,
    ),
    Route(
        method="GET",
        path="/readyz",
        summary="All that was there at the start is read.",
        handler=health.ready,
        answer=answers.Health,
        is_public=True,
    ),
    Route(
        method="GET",
        path="/metrics",
        summary="Numbers for Prometheus.",
        handler=health.metrics,
        content_type="text/plain",
        cost=5.0,
    ),
)

PAGE: Final = (
    Route(
        method="GET",
        path="/",
        summary="The page.",
        handler=page_files.index,
        content_type="text/html",
        is_public=True,
    ),
    Route(
        method="GET",
        path="/page/{file}",
        summary="A file of the page.",
        handler=page_files.file,
        content_type="text/css",
        is_public=True,
    ),
)

ROUTES: Final = (*LISTS, *USERS, *ITEMS, *RUNNING, *PAGE)
"""All of them but the description itself, which is made from these."""
