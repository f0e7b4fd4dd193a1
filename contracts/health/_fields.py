"""Field types that the nouns of health share."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from bus.contract import Id, Text, Unprocessable

Slug = Annotated[
    Text, StringConstraints(min_length=1, max_length=100, pattern=r"^[a-z0-9][a-z0-9-]*$")
]
"""A name for machines: lower-case letters, digits and hyphens, 1–100 characters."""

Cron = Annotated[
    Text, StringConstraints(min_length=9, max_length=200, pattern=r"^[^\s]+( [^\s]+){4}$")
]
"""Five cron fields: minute, hour, day of the month, month, day of the week."""

TestDefinitionId = Slug
TestRunId = Id
RunStatus = Literal["running", "success", "failure", "skipped", "timeout"]
FinishedStatus = Literal["success", "failure", "skipped", "timeout"]
TriggeredBy = Literal["cron", "manual", "webhook"]

Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""From 0 (nothing works) to 1 (all is well)."""

Measure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A measured quantity that is not negative."""

Usd = Annotated[Decimal, Field(ge=0, max_digits=18, decimal_places=9)]
"""US dollars, a decimal number; text in replies, so that nothing is rounded on the way."""

Days = Annotated[int, Field(ge=1, le=366)]
"""A number of calendar days in UTC, including today."""


class InvalidSchedule(Unprocessable, detail="the schedule {schedule} cannot be used: {reason}"):
    """The cron fields are invalid, or no time ever matches them."""

    schedule: str
    reason: str
