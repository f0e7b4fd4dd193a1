"""Field types that the nouns of agents share."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from bus.contract import Count, Id, JsonObject, Text, one_spelling

AccountId = Id
RunningAgentId = Id
"""A registered agent; tasks are claimed in its name with this id as text."""

Provider = Annotated[
    Text, StringConstraints(min_length=1, max_length=100, pattern=r"^[a-z0-9][a-z0-9._-]*$")
]
"""The provider of the model: lower-case letters, digits, dots, hyphens and underscores, 1–100
characters."""

Path = Annotated[Text, StringConstraints(min_length=1, max_length=4_000)]
"""A path in a file system, up to 4,000 characters."""

ConnectionName = Annotated[
    Text, StringConstraints(min_length=1, max_length=200), AfterValidator(one_spelling)
]
"""The name that a NATS client gives its connection."""

Prompt = Annotated[Text, StringConstraints(max_length=500_000)]
"""What an agent was asked to do, up to 500,000 characters."""

AgentStatus = Literal["idle", "running", "waiting_for_input", "stopped", "crashed"]

AgentMode = Literal["execute", "discuss", "plan", "detail", "refine", "chat", "errand"]

CrashCause = Literal["lease_expired", "disconnected", "reported"]
"""How the crash became known: no heartbeat within the lease, connection lost, or it was
reported."""

StopReason = Annotated[
    Text, StringConstraints(min_length=1, max_length=100, pattern=r"^[a-z][a-z0-9_]*$")
]
"""Why an agent ended, one word in snake_case: ``user_requested``, ``task_complete``, ``error``…"""

HeartbeatSeconds = Annotated[int, Field(ge=1, le=3600)]
"""Seconds between two heartbeats, up to an hour; a lease holds for three of them."""

ExitCode = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
"""The exit code of a process; a negative one is the signal that ended it."""

SessionNumber = Count
"""The number of a session of an agent, from 1; 0 is before the first."""

Questions = Annotated[list[JsonObject], Field(min_length=1, max_length=100)]
"""The questions of an agent to a person, up to 100 JSON objects."""
