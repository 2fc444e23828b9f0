"""Kafka's credentials in Faust's form."""

from __future__ import annotations

from faust import SASLCredentials, SSLCredentials

from stream_app.kafka import connection
from stream_app.settings import Settings


def faust_credentials(settings: Settings) -> SASLCredentials | SSLCredentials | None:
    """The `broker_credentials` of a Faust app; None for a plain connection.

    Raises:
        SettingsError: As `stream_app.kafka.connection`.
    """
    made = connection(settings)
    if settings.kafka.security_protocol == "PLAINTEXT":
        return None
    if settings.kafka.security_protocol == "SSL":
        return SSLCredentials(context=made["ssl_context"])
    return SASLCredentials(
        username=made["sasl_plain_username"],
        password=made["sasl_plain_password"],
        mechanism=made["sasl_mechanism"],
        ssl_context=made.get("ssl_context"),
    )
