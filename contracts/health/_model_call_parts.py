"""What is told of model calls whose test run is gone."""

from bus.contract import Event, Id, Reply, Version
from contracts.health._fields import TestRunId

ModelCallId = Id


class DetachedModelCall(Reply):
    """A call to a model, without what was said."""

    id: ModelCallId
    version: Version
    """As it is now."""


class ModelCallDetached(Event, type="model_call.detached"):
    """The test run that a model call was made for is gone; what the call was is kept."""

    model_call: DetachedModelCall
    test_run_id: TestRunId
    """The run that is gone."""
