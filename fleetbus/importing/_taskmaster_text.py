"""What a Task Master record says, as the description, state and priority of a task here."""

from fleetbus.importing.plan import Priority, TaskStatus
from fleetbus.importing.records import MAX_PHASE_TEXT, MAX_REASON, Record

PRIORITIES: dict[str, Priority] = {
    "critical": "high",
    "high": "high",
    "medium": "medium",
    "low": "low",
}
STATUSES: dict[str, TaskStatus] = {
    "": "pending",
    "pending": "pending",
    "todo": "pending",
    "in-progress": "pending",
    "done": "completed",
    "completed": "completed",
    "review": "blocked",
    "blocked": "blocked",
    "deferred": "blocked",
    "cancelled": "blocked",
}
BLOCKED_REASONS = {
    "review": "In review in Task Master",
    "blocked": "Blocked in Task Master",
    "deferred": "Deferred in Task Master",
    "cancelled": "Cancelled in Task Master",
}
TEXTS = {
    "details": "Details",
    "testStrategy": "Test strategy",
    "acceptanceCriteria": "Acceptance criteria",
    "implementationApproach": "Implementation approach",
    "technicalConstraints": "Technical constraints",
    "codebasePatterns": "Codebase patterns",
    "relevantFiles": "Relevant files",
    "existingInfrastructure": "Existing infrastructure",
    "scopeBoundaries": "Scope boundaries",
    "expansionPrompt": "Expansion prompt",
    "metadata": "Metadata",
}
LINES = {
    "assignee": "Assignee",
    "tags": "Tags",
    "labels": "Labels",
    "category": "Category",
    "skills": "Skills",
    "complexity": "Complexity",
    "complexityReasoning": "Complexity, because",
    "recommendedSubtasks": "Recommended subtasks",
    "effort": "Effort",
    "actualEffort": "Actual effort",
    "previousStatus": "Previous status",
    "createdAt": "Created",
    "updatedAt": "Updated",
    "completedAt": "Completed",
    "dueDate": "Due",
}
TAG_LINES = {"created": "Created", "updated": "Updated"}
DERIVED = {
    "completedCount",
    "isSubtask",
    "parent",
    "parentId",
    "parentTask",
    "parentTaskId",
    "taskCount",
}
"""Fields that say what others say already."""


def description(record: Record) -> str:
    """Its texts, and what else is known of it as a list."""
    return record.described(
        [
            ("Title", record.whole_name()),
            ("", record.text("description")),
            *record.headed(**TEXTS),
            ("In Task Master", record.listed(**LINES)),
        ]
    )


def tag_description(record: Record) -> str:
    """What the metadata of a tag says of it."""
    listed = record.listed(**TAG_LINES)
    return record.described(
        [("", record.text("description")), ("In Task Master", listed)], MAX_PHASE_TEXT
    )


def state(record: Record) -> tuple[TaskStatus, str | None]:
    """How far it is; what holds it back in Task Master blocks it here, with the reason."""
    word = record.text("status", MAX_REASON).lower().replace("_", "-")
    if word == "in-progress":
        record.note("in-progress in Task Master, pending here: no agent has a lease on it")
    if word not in STATUSES:
        record.note(f"status {word!r} is unknown; blocked until a person decides")
        return "blocked", f"Status {word!r} in Task Master"
    return STATUSES[word], BLOCKED_REASONS.get(word)


def priority(record: Record, inherited: Priority) -> Priority:
    """Its priority; where it has none, or one that is unknown, the one of its parent."""
    word = record.text("priority", MAX_REASON).lower()
    if word and word not in PRIORITIES:
        record.note(f"priority {word!r} is unknown, imported as {inherited}")
    return PRIORITIES.get(word, inherited)
