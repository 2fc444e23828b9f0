"""`sliceflow erase`: have all roles forget a user."""

from __future__ import annotations

import asyncio
import time

import click

from stream_app.cli._context import echo_json, reachable_settings
from stream_app.cli.send import send_record
from stream_app.erasing import erasure_value
from stream_app.errors import UsageError
from stream_app.records import Erasure
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules
from stream_app.stages.clean import Rejection, clean_erasure
from stream_app.topics import EVENTS, prefixed


@click.command("erase")
@click.argument("user")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, user: str, as_json: bool) -> None:
    """Erase USER: send the wish to `events`, wait until Kafka has it, and print where it lies.

    Each role forgets the user as the record comes by; what lies in logs stays until their retention ends.
    """
    settings = reachable_settings(ctx)
    erasure = Erasure(user_id=user, ts=time.time_ns() // 1_000_000)
    value = checked_value(erasure, settings)
    topic = prefixed(settings.prefix, EVENTS)
    partition, offset = asyncio.run(send_record(settings, topic, user, value, erasure.ts))
    if as_json:
        echo_json({"topic": topic, "partition": partition, "offset": offset, "erasure": erasure})
    else:
        click.echo(f"{topic}, partition {partition}, offset {offset}")


def checked_value(erasure: Erasure, settings: Settings) -> bytes:
    """The value of the record, judged by the very rules that the consumers use.

    Raises:
        UsageError: It would be refused.
    """
    try:
        key = erasure.user_id.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError("This would be refused: the user id is no UTF-8.", mend="correct the user id") from error
    rules = clean_rules(settings)
    value = erasure_value(erasure, rules)
    answer = clean_erasure(key, value, erasure.ts, rules)
    if isinstance(answer, Rejection):
        raise UsageError(f"This would be refused ({answer.reason}): {answer.detail}.", mend="correct the user id")
    return value
