"""Checks of what became of agents, from the events alone, as in ``verify``."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from uuid import UUID

from bus.contract.entity import Entity
from contracts.agents.agents import Agent, AgentCrashed
from contracts.planning.tasks import TaskClaimed, TaskCompleted
from fleetbus.demo.verify import TAKEN_BACK, Check, History, entity_of

ENDED = {"stopped", "crashed"}


def verify_agents(
    history: History, stored: Iterable[Entity], hurt: Collection[UUID]
) -> list[Check]:
    """Check what must hold where the processes of these agents were killed or frozen."""
    return [
        crashed_once(history, hurt),
        taken_back(history),
        done_by_others(history),
        all_ended(stored),
    ]


def crashed_once(history: History, hurt: Collection[UUID]) -> Check:
    """Whoever was hurt is told crashed, once per incarnation, and nobody else is."""
    crashes = [d.event.agent for d in history if isinstance(d.event, AgentCrashed)]
    counts = Counter((agent.id, agent.incarnation) for agent in crashes)
    wrong = [
        f"agent {agent_id} has {count} events of a crash in incarnation {incarnation}"
        for (agent_id, incarnation), count in counts.items()
        if count > 1
    ]
    told = {agent.id for agent in crashes}
    wrong += [
        f"agent {one} was hurt and has no event of a crash" for one in hurt if one not in told
    ]
    wrong += [f"agent {one} has an event of a crash and was not hurt" for one in told - set(hurt)]
    return Check(
        "every agent that was killed or frozen has one crash event", len(crashes), tuple(wrong)
    )


def taken_back(history: History) -> Check:
    """What a crash says the agent had is what it had by the claims before."""
    in_hand: defaultdict[str, set[str]] = defaultdict(set)
    holders: dict[str, str] = {}
    count, wrong = 0, []
    for delivery in history:
        match delivery.event:
            case TaskClaimed(task=task):
                holders[delivery.entity_id] = task.claimed_by or ""
                in_hand[task.claimed_by or ""].add(delivery.entity_id)
            case AgentCrashed(agent=agent, tasks=tasks):
                told, had = {str(task.id) for task in tasks}, in_hand[str(agent.id)]
                count += len(had | told)
                wrong += [
                    f"{agent.name} crashed and its event lacks task {one}" for one in had - told
                ]
                wrong += [f"{agent.name} crashed without task {one}" for one in told - had]
            case event if isinstance(event, TaskCompleted | TAKEN_BACK):
                in_hand[holders.pop(delivery.entity_id, "")].discard(delivery.entity_id)
    return Check("each crash event names all tasks that the agent had", count, tuple(wrong))


def done_by_others(history: History) -> Check:
    """After a crash each task of the agent is taken from it at once, and in the end completed.

    One that failed too often is blocked instead, for a person.
    """
    last: dict[str, str] = {}
    lost: dict[str, str] = {}
    claimed: set[str] = set()
    for delivery in history:
        match delivery.event:
            case AgentCrashed(agent=agent, tasks=tasks):
                lost |= {str(task.id): agent.name for task in tasks}
                claimed -= {str(task.id) for task in tasks}
            case TaskClaimed():
                claimed.add(delivery.entity_id)
        if delivery.type.startswith("task."):
            last[delivery.entity_id] = getattr(entity_of(delivery), "status", "deleted")
    done = {task for task in lost if last[task] == "completed" and task in claimed}
    done |= {task for task in lost if last[task] == "blocked"}
    wrong = [
        f"task {task} of {name} was not done by another attempt: it is {last[task]}"
        for task, name in lost.items()
        if task not in done
    ]
    return Check(
        "the tasks of a crashed agent were done by another attempt", len(lost), tuple(wrong)
    )


def all_ended(stored: Iterable[Entity]) -> Check:
    """Each agent has ended, in good order or crashed."""
    agents = [entity for entity in stored if isinstance(entity, Agent)]
    wrong = [f"{one.name} is {one.status}" for one in agents if one.status not in ENDED]
    return Check("every agent has ended, and the service knows it", len(agents), tuple(wrong))
