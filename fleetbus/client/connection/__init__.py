"""How every part of fleetbus is connected to NATS: steadily, whatever arrives and whoever ends it.

``connect`` is the only place that makes a client of nats-py; a law test says so.
"""
