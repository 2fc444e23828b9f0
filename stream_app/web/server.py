"""The HTTP server: the table of routes becomes an aiohttp application, and is served until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from stream_app.errors import UsageError
from stream_app.settings import Settings
from stream_app.web.calls import Call, Route, response_of
from stream_app.web.kept_answers import KeptAnswers
from stream_app.web.openapi import description
from stream_app.web.problems import Problem
from stream_app.web.routes import LIST, ROUTES
from stream_app.web.security import MAX_BODY_BYTES, Guard, put_headers, token_of
from stream_app.web.service import Service

log = logging.getLogger("sliceflow.web")

SHUTDOWN_S: Final = 2.0
"""How long open requests may take at the end."""

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_application(service: Service, guard: Guard) -> web.Application:
    """The application: every route behind the guard, every error as problem JSON."""
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_as_problems])
    app.on_response_prepare.append(_put_headers)
    described = msgspec.json.encode(description(ROUTES))

    async def describe(_: Call) -> bytes:
        return described

    about = Route("GET", "/openapi.json", "This description.", describe, is_public=True)
    for route in (*ROUTES, about):
        app.router.add_route(route.method, route.path, _handle(route, service, guard))
    return app


async def started_runner(service: Service, guard: Guard) -> web.AppRunner:
    """What serves the application, kept answers first; no socket yet."""
    runner = web.AppRunner(
        build_application(service, guard), access_log=None, logger=_protocol_log(), shutdown_timeout=SHUTDOWN_S
    )
    await runner.setup()
    server = runner.server
    assert server is not None, "set up"
    server.request_handler = KeptAnswers(service, guard, LIST, server.request_handler).handle
    return runner


async def serve(settings: Settings, stop: asyncio.Event, on_ready: Callable[[str], None], *, any_port: bool) -> None:
    """Serve until `stop` is set.

    Args:
        settings: With a Kafka address.
        stop: Ends it.
        on_ready: Told the address once requests are answered.
        any_port: Take another port where the one of the settings is taken.

    Raises:
        SettingsError: The token's settings are wrong.
        UsageError: The port is taken.
        SliceflowError: The model or Kafka cannot be used.
    """
    guard = Guard(settings.serve_host, token_of(settings), settings.serve_requests_per_s)
    with _bound(settings.serve_host, settings.serve_port, any_port=any_port) as listening:
        async with Service(settings) as service:
            runner = await started_runner(service, guard)
            try:
                await web.SockSite(runner, listening).start()
                on_ready(address_of(settings.serve_host, listening.getsockname()[1]))
                await service.run(stop)
            finally:
                service.streams.close()
                await runner.cleanup()


def address_of(host: str, port: int) -> str:
    """The address of the page, as a browser on this machine takes it."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}/"


def _protocol_log() -> logging.Logger:
    """For aiohttp's own errors. They are about requests that are no HTTP: whoever sends them could fill the log."""
    made = logging.getLogger("sliceflow.web.protocol")
    made.setLevel(logging.CRITICAL)
    return made


def _handle(route: Route, service: Service, guard: Guard) -> Handle:
    name = route.name

    async def handle(request: web.Request) -> web.StreamResponse:
        begun_s, status = time.perf_counter(), 500
        try:
            guard.check(request, cost=route.cost, is_public=route.is_public)
            response = response_of(route, await route.handler(Call(request, service)))
            status = response.status
        except (Problem, web.HTTPException) as error:
            status = error.status
            raise
        finally:
            service.metrics.note_request(name, status, time.perf_counter() - begun_s)
        return response

    return handle


@web.middleware
async def _as_problems(request: web.Request, handler: Handle) -> web.StreamResponse:
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        detail = f"{request.method} {request.path} cannot be answered: {error.reason}."
        return Problem(error.status, detail, mend="see /openapi.json", headers=headers).response()
    except Exception:
        # What it was is for the log: it may name what is none of the client's business.
        log.exception("%s %s failed", request.method, request.path)
        return Problem(500, "The server failed at this request.", mend="read the log of the role `serve`").response()


async def _put_headers(_: web.Request, response: web.StreamResponse) -> None:
    put_headers(response)


def _bound(host: str, port: int, *, any_port: bool) -> socket.socket:
    """A socket that listens at the address.

    Raises:
        UsageError: It is taken, or no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        if any_port and port:
            made.bind((host, 0))
            return made
        made.close()
        raise UsageError(
            f"The server cannot listen at {host}, port {port}: {error.strerror or error}.",
            mend="stop what is there, or set serve_port to another one (0: any free one)",
        ) from error
    return made
