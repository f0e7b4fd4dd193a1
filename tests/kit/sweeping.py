"""Jobs of the sweeper, a step at a time."""

from fleetbus.server.service import Service
from fleetbus.server.sweeper.sweeper import Sweeper, sweeps


class Sweep:
    """Runs one step of a job of this service: ``await sweep("expire_test_runs")``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, job: str) -> int:
        """Return how much was handled."""
        service = self._service
        work = {sweep.name: sweep for sweep in sweeps(service.registry, service.settings)}
        return await Sweeper(service.registry, service.database, [])._step(work[job], 0)
