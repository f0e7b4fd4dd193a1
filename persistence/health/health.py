"""How things are: counted from the newest runs, or from the tallies that triggers keep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Date, DateTime, Integer, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.health.health import Dashboard, StatusCounts

HOUR = timedelta(hours=1)
END = datetime.max.replace(tzinfo=UTC)

_TIME = DateTime(timezone=True)

# Runs whose definition is deleted, and which are still to be removed and taken off the tallies.
_IS_GONE = """
    test_definition_id IN (SELECT id FROM bus.deletions WHERE entity = 'test_definition')
"""

# By the index of each definition, of which there is nearly always none: all runs are never read.
_GONE = """
    bus.deletions AS d CROSS JOIN LATERAL (
        SELECT started_at, status FROM health.test_runs
        WHERE test_definition_id = d.id AND d.entity = 'test_definition' OFFSET 0
    ) AS gone
"""

_LAST = text(
    f"""
    SELECT status, count(*) AS runs FROM (
        SELECT status FROM health.test_runs WHERE status IN ('success', 'failure', 'timeout')
        AND ({_IS_GONE}) IS NOT TRUE
        ORDER BY started_at DESC, id DESC LIMIT :last
    ) AS newest GROUP BY status
    """
).bindparams(bindparam("last", type_=Integer))

# Whole hours are counted already; only the runs before the first of them are looked at.
_COUNTS_SINCE = f"""
    SELECT status, sum(runs) AS runs FROM (
        SELECT status, runs FROM health.run_tallies WHERE hour >= :whole
        UNION ALL
        SELECT status, 1 FROM health.test_runs WHERE started_at >= :since AND started_at < :whole
        AND ({_IS_GONE}) IS NOT TRUE
        UNION ALL
        SELECT status, -1 FROM {_GONE} WHERE started_at >= :whole
    ) AS counted GROUP BY status
"""

_SINCE = text(_COUNTS_SINCE).bindparams(
    bindparam("whole", type_=_TIME), bindparam("since", type_=_TIME)
)

_DASHBOARD = text(
    f"""
    SELECT json_build_object(
        'latest_summary', (
            SELECT to_jsonb(s) || jsonb_build_object('cost_usd', s.cost_usd::text)
            FROM health.daily_summaries AS s WHERE day <= :today ORDER BY day DESC LIMIT 1
        ),
        'last_24_hours', (
            SELECT coalesce(json_object_agg(status, runs), '{{}}') FROM ({_COUNTS_SINCE}) AS counts
        ),
        'usage', (
            SELECT coalesce(json_agg(u ORDER BY calls DESC, provider, model), '[]') FROM (
                SELECT provider, model, sum(calls) AS calls, sum(tokens) AS tokens,
                       sum(cost_usd)::text AS cost_usd,
                       (sum(latency_ms) / nullif(sum(timed_calls), 0))::float8 AS mean_latency_ms
                FROM health.model_tallies WHERE day >= :first
                GROUP BY provider, model HAVING sum(calls) > 0
            ) AS u
        ),
        'trend', (
            SELECT json_agg(json_build_object('day', day, 'runs', runs) ORDER BY day) FROM (
                SELECT day::date AS day,
                       coalesce(json_object_agg(status, n) FILTER (WHERE n > 0), '{{}}') AS runs
                FROM generate_series(CAST(:first AS timestamp), CAST(:today AS timestamp), '1 day')
                    AS day
                LEFT JOIN (
                    SELECT (hour AT TIME ZONE 'UTC')::date AS of_day, status, sum(runs) AS n
                    FROM (
                        SELECT hour, status, runs FROM health.run_tallies
                        UNION ALL
                        SELECT started_at, status, -1 FROM {_GONE}
                    ) AS tallies
                    WHERE hour >= CAST(:first AS timestamp) AT TIME ZONE 'UTC'
                    GROUP BY of_day, status
                ) AS tallied ON of_day = day::date
                GROUP BY day
            ) AS days
        )
    )::text
    """
).bindparams(
    bindparam("whole", type_=_TIME),
    bindparam("since", type_=_TIME),
    bindparam("first", type_=Date),
    bindparam("today", type_=Date),
)


async def count_last(db: AsyncConnection, last: int) -> StatusCounts:
    """The statuses of the newest runs that passed or failed."""
    rows = await db.execute(_LAST, {"last": last})
    return StatusCounts(**{row.status: row.runs for row in rows})


async def count_since(db: AsyncConnection, since: datetime) -> StatusCounts:
    """The statuses of all runs that were started then or later."""
    rows = await db.execute(_SINCE, {"since": since, "whole": whole_hour(since)})
    return StatusCounts(**{row.status: int(row.runs) for row in rows})


async def dashboard(db: AsyncConnection, *, now: datetime, days: int) -> Dashboard:
    """Everything on the dashboard, in one statement."""
    since = now - 24 * HOUR
    values = {
        "since": since,
        "whole": whole_hour(since),
        "today": now.date(),
        "first": now.date() - timedelta(days=days - 1),
    }
    return Dashboard.model_validate_json((await db.execute(_DASHBOARD, values)).scalar_one())


def whole_hour(time: datetime) -> datetime:
    """The first full hour that is not before this time, as far as times reach."""
    hour = time.replace(minute=0, second=0, microsecond=0)
    return hour if hour == time else hour + min(HOUR, END - hour)
