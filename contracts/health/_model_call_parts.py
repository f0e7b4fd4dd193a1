"""The event of model calls whose test run is gone."""

from bus.contract import Event, Id, Reply, Version
from contracts.health._fields import TestRunId

ModelCallId = Id


class DetachedModelCall(Reply):
    """A model call, without its prompt and response."""

    id: ModelCallId
    version: Version
    """The version after this change."""


class ModelCallDetached(Event, type="model_call.detached"):
    """The test run that a model call was made for is gone; the call itself is kept."""

    model_call: DetachedModelCall
    test_run_id: TestRunId
    """The test run that is gone."""
