"""The statements of what is written by hand: one per request, the outbox row included."""

CATEGORIES = "'{execute,verify,merge,review}'"

_COMPLETE = """
    UPDATE planning.tasks SET status = 'completed', summary = $2, claimed_by = NULL,
           lease_expires_at = NULL, version = version + 1, updated_at = now()
    WHERE id = $1 AND status = 'in_progress' RETURNING *
"""
_CREATE = """
    INSERT INTO planning.tasks (id, name, description, priority)
    VALUES (uuidv7(), $1, $2, $3) RETURNING *
"""
_CLAIM = f"""
    UPDATE planning.tasks SET status = 'in_progress', claimed_by = $1, attempt = attempt + 1,
           lease_expires_at = now() + interval '5 minutes', version = version + 1,
           updated_at = now()
    WHERE id = (
        SELECT id FROM planning.tasks AS ready
        WHERE status = 'pending' AND category = ANY({CATEGORIES})
          AND (phase_id IS NULL OR EXISTS (SELECT FROM planning.phases AS phase
               WHERE phase.id = phase_id AND phase.status = 'in_progress'))
          AND NOT EXISTS (SELECT FROM planning.task_dependencies AS d
               JOIN planning.tasks AS other ON other.id = d.depends_on_task_id
               WHERE d.task_id = ready.id AND other.status <> 'completed')
        ORDER BY priority_rank, position, created_at, id LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING *
"""
_APPEND = """
    INSERT INTO agents.log_chunks (id, agent_id, agent_name, content)
    VALUES (uuidv7(), $1, (SELECT name FROM agents.agents WHERE id = $1), $2) RETURNING *
"""
_APPENDED = "json_build_object('id', t.id, 'created_at', t.created_at)"
_CLAIMED = "json_build_object('tasks', json_agg(json_build_object('task', to_json(t))))"


def _telling(work: str, event: str, reply: str, key: int) -> str:
    """The work with its outbox row, if there is an event; with ``key`` its idempotency row too,
    from that parameter."""
    told = f"""
        , told AS (INSERT INTO bus.outbox (event_id, type, entity_id, data)
                   SELECT uuidv7(), '{event}', id::text, json_build_object('task', to_json(t))
                   FROM t)
    """
    kept = f"""
        , kept AS (INSERT INTO bus.requests (caller, key, fingerprint, status, reply)
                   SELECT '', ${key}, ${key + 1}, 200, reply FROM answer)
    """
    return f"""
        WITH t AS ({work}), answer AS (SELECT ({reply})::text AS reply FROM t)
        {told if event else ""} {kept if key else ""}
        SELECT reply FROM answer
    """


def complete(key: int = 0) -> str:
    return _telling(_COMPLETE, "task.completed", "to_json(t)", key)


def create(key: int = 0) -> str:
    return _telling(_CREATE, "task.created", "to_json(t)", key)


def claim(key: int = 0) -> str:
    return _telling(_CLAIM, "task.claimed", _CLAIMED, key)


def append(key: int = 0) -> str:
    return _telling(_APPEND, "", _APPENDED, key)


GET = "SELECT to_json(t)::text FROM planning.tasks AS t WHERE id = $1"
LIST = """
    SELECT json_build_object('items', json_agg(to_json(t)))::text
    FROM (SELECT * FROM planning.tasks ORDER BY created_at, id LIMIT $1) AS t
"""
STORED = "SELECT reply, fingerprint FROM bus.requests WHERE caller = '' AND key = $1"
