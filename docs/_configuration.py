"""The page of the settings, and the README's table of those that come first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import AliasChoices

from bus.contract.docs import own_attribute_docs
from docs._markdown import page, prose, table
from fleetbus.cli.schemas import type_of
from fleetbus.server.config import Settings

FIRST_SETTINGS = (
    "database_url",
    "nats_url",
    "max_in_flight",
    "pool_write",
    "pool_read",
    "request_timeout",
    "idempotency_retention",
    "stream_replicas",
    "stop_timeout",
    "log_level",
)
"""The settings that the README names; the page on configuration has all of them."""


def configuration_page() -> str:
    """Every setting."""
    lead = "The settings of a handler process, as environment variables."
    more = (
        "`fleetbus serve`, `migrate` and `doctor` read them, and so does `up`, which has its own "
        "servers. A flag of the command overrides the variable. `FLEETBUS_WORKERS` is the default "
        "of `--workers`. `call`, `events`, `describe` and `import` read `NATS_URL`, and `events` "
        "also `FLEETBUS_STREAM`. Times are in seconds. The two addresses are also read from "
        "`FLEETBUS_DATABASE_URL` and `FLEETBUS_NATS_URL`."
    )
    return page("Configuration", lead, [more, settings_table(Settings.model_fields)])


def settings_table(names: Iterable[str]) -> str:
    """Settings with their types and defaults, a row each."""
    schemas = Settings.model_json_schema(by_alias=False)["properties"]
    docs = own_attribute_docs(Settings)
    return table(
        ("variable", "type", "default", "meaning"),
        [
            (
                f"`{variable(name)}`",
                type_of({key: v for key, v in schemas[name].items() if key != "title"}, {}),
                f"`{_default(Settings.model_fields[name].default)}`",
                prose(docs[name]),
            )
            for name in names
        ],
    )


def variable(name: str) -> str:
    """The environment variable of a setting."""
    alias = Settings.model_fields[name].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"FLEETBUS_{name.upper()}"


def _default(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
