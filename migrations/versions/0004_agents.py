"""Agents: accounts with their credentials, agents with their prompts, and what they said."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = [
    """
    CREATE TABLE agents.accounts (
        id UUID NOT NULL,
        version INTEGER DEFAULT 1 NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        email TEXT NOT NULL,
        provider TEXT DEFAULT 'claude' NOT NULL,
        config JSONB,
        has_credentials BOOLEAN DEFAULT false NOT NULL,
        is_exhausted BOOLEAN DEFAULT false NOT NULL,
        exhausted_until TIMESTAMP WITH TIME ZONE,
        last_used_at TIMESTAMP WITH TIME ZONE,
        sort_order INTEGER DEFAULT 0 NOT NULL,
        CONSTRAINT pk_accounts PRIMARY KEY (id),
        CONSTRAINT uq_accounts__provider_email UNIQUE (provider, email)
    )
    """,
    """
    CREATE TABLE agents.credentials (
        id UUID NOT NULL,
        version INTEGER DEFAULT 1 NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        key_id TEXT NOT NULL,
        nonce BYTEA NOT NULL,
        ciphertext BYTEA NOT NULL,
        CONSTRAINT pk_credentials PRIMARY KEY (id),
        CONSTRAINT fk_credentials__id FOREIGN KEY(id) REFERENCES agents.accounts (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE agents.agents (
        id UUID NOT NULL,
        version INTEGER DEFAULT 1 NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        name TEXT NOT NULL,
        task_id UUID,
        initiative_id UUID,
        session_id TEXT,
        worktree_id TEXT,
        provider TEXT DEFAULT 'claude' NOT NULL,
        account_id UUID,
        status TEXT DEFAULT 'idle' NOT NULL,
        mode TEXT DEFAULT 'execute' NOT NULL,
        pid INTEGER,
        host TEXT,
        connection_name TEXT,
        exit_code INTEGER,
        output_file_path TEXT,
        result JSONB,
        pending_questions JSONB,
        answers JSONB,
        dismissed_at TIMESTAMP WITH TIME ZONE,
        incarnation INTEGER DEFAULT 1 NOT NULL,
        heartbeat_interval_s INTEGER DEFAULT '10' NOT NULL,
        last_heartbeat_at TIMESTAMP WITH TIME ZONE,
        lease_expires_at TIMESTAMP WITH TIME ZONE,
        suspected_at TIMESTAMP WITH TIME ZONE,
        last_progress_at TIMESTAMP WITH TIME ZONE,
        progress JSONB,
        stalled_at TIMESTAMP WITH TIME ZONE,
        cancel_requested_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT pk_agents PRIMARY KEY (id),
        CONSTRAINT ck_agents__status CHECK (status IN ('idle', 'running', 'waiting_for_input', 'stopped', 'crashed')),
        CONSTRAINT ck_agents__mode CHECK (mode IN ('execute', 'discuss', 'plan', 'detail', 'refine', 'chat', 'errand')),
        CONSTRAINT uq_agents__name UNIQUE (name),
        CONSTRAINT fk_agents__task_id FOREIGN KEY(task_id) REFERENCES planning.tasks (id) ON DELETE SET NULL,
        CONSTRAINT fk_agents__initiative_id FOREIGN KEY(initiative_id) REFERENCES planning.initiatives (id) ON DELETE SET NULL,
        CONSTRAINT fk_agents__account_id FOREIGN KEY(account_id) REFERENCES agents.accounts (id) ON DELETE SET NULL
    )
    """,
    """
    CREATE TABLE agents.prompts (
        id UUID NOT NULL,
        version INTEGER DEFAULT 1 NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        prompt TEXT NOT NULL,
        CONSTRAINT pk_prompts PRIMARY KEY (id),
        CONSTRAINT fk_prompts__id FOREIGN KEY(id) REFERENCES agents.agents (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE agents.log_chunks (
        id UUID NOT NULL,
        version INTEGER DEFAULT 1 NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        agent_id UUID NOT NULL,
        agent_name TEXT,
        session_number INTEGER DEFAULT 1 NOT NULL,
        content TEXT NOT NULL,
        CONSTRAINT pk_log_chunks PRIMARY KEY (id, created_at)
    ) PARTITION BY RANGE (created_at)
    """,
]

INDEXES = [
    "ix_accounts__created_at_id ON agents.accounts (created_at, id)",
    "ix_accounts__sort_order_id ON agents.accounts (sort_order, id)",
    "ix_credentials__key_id ON agents.credentials (key_id)",
    "ix_agents__account_id ON agents.agents (account_id)",
    "ix_agents__connection_name ON agents.agents (connection_name) WHERE lease_expires_at IS NOT NULL",
    "ix_agents__created_at_id ON agents.agents (created_at, id)",
    "ix_agents__initiative_id ON agents.agents (initiative_id)",
    "ix_agents__lease_expires_at ON agents.agents (lease_expires_at) WHERE lease_expires_at IS NOT NULL",
    "ix_agents__session_id ON agents.agents (session_id) WHERE session_id IS NOT NULL",
    "ix_agents__status_created_at ON agents.agents (status, created_at, id)",
    "ix_agents__suspected_at ON agents.agents (suspected_at) WHERE suspected_at IS NOT NULL",
    "ix_agents__task_id ON agents.agents (task_id)",
    "ix_log_chunks__agent_id_created_at_id ON agents.log_chunks (agent_id, created_at, id)",
    "ix_log_chunks__agent_id_session_number ON agents.log_chunks (agent_id, session_number, created_at, id)",
]


def upgrade() -> None:
    op.execute("CREATE SCHEMA agents")
    for table in TABLES:
        op.execute(table)
    op.execute("CREATE TABLE agents.log_chunks_default PARTITION OF agents.log_chunks DEFAULT")
    for index in INDEXES:
        op.execute(f"CREATE INDEX {index}")


def downgrade() -> None:
    op.execute("DROP SCHEMA agents CASCADE")
