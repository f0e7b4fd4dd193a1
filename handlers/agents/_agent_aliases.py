"""Names for agents that come without one: an adjective and an animal."""

from __future__ import annotations

import secrets

from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import AlreadyExists
from contracts.agents.agents import Agent
from persistence.agents import agents

_ADJECTIVES = """
    able agile airy amber amiable ample apt astute autumn awake balmy bold brave breezy bright brisk
    calm candid careful cheerful chief civil clear clever cool copper coral cosy crisp curious
    daring dapper deft eager early easy elder even fair famous fast fierce fine firm fleet fond
    frank free fresh gentle giant glad golden good grand great green happy hardy honest humble
    ideal jolly keen kind large light lively loyal lucky lunar mellow merry mighty mild modest neat
    nimble noble patient plain polite proud quick quiet rapid ready royal rustic serene sharp silent
    silver smart snowy solid steady sunny swift tidy vivid warm wise witty young zesty
"""

_ANIMALS = """
    adder albatross ant antelope auk badger bat bear beaver bee bison boar buffalo camel caribou
    carp cat cheetah chamois cobra condor coot cormorant cow coyote crab crane cricket crow deer
    dingo dolphin donkey dove duck eagle eel egret elk emu falcon ferret finch fox frog gazelle
    gecko gibbon giraffe goat goose grouse gull hare hawk hedgehog heron horse ibex ibis iguana
    impala jackal jaguar jay kestrel kite koala lark lemur leopard linnet lion lizard llama lobster
    lynx magpie marmot marten mole moose mouse newt okapi orca osprey otter owl ox panda panther
    parrot pelican penguin pigeon pony puffin puma quail rabbit raccoon raven robin salmon seal
    shrew sparrow squid stoat stork swan tapir tiger toad trout turtle viper vole walrus wasp weasel
    whale wolf wombat wren yak zebra
"""

ADJECTIVES = tuple(_ADJECTIVES.split())
ANIMALS = tuple(_ANIMALS.split())

PLAIN_TRIES = 3
"""So often a name without a number is tried: if none of them is free, most are taken."""

TRIES = 20


async def add_with_alias(db: AsyncConnection, agent: Agent) -> Agent:
    """Insert an agent under a name that no other has, whoever else looks for one."""
    for attempt in range(TRIES):
        named = Agent.trusted(agent.__dict__ | {"name": alias(numbered=attempt >= PLAIN_TRIES)})
        if await agents.add_unless_named(db, named):
            return named
    raise AlreadyExists(entity="agent", fields="name")


def alias(*, numbered: bool = False) -> str:
    """A name like ``brave-otter``, or ``brave-otter-731`` once there are many of them."""
    name = f"{secrets.choice(ADJECTIVES)}-{secrets.choice(ANIMALS)}"
    return f"{name}-{secrets.randbelow(1_000_000)}" if numbered else name
