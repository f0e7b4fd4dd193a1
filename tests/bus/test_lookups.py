"""Queries by id, or by a token: the entity, what lies beside it and what it names, in one look."""

import asyncio
import base64
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bus.contract import Token
from bus.contract.schemas import schema_of
from bus.handling import new_token, same_secret, secret_hash
from bus.kit.ids import uuid7
from bus.kit.tokens import parse_token
from bus.running.registry import Registry
from fleetbus import domain
from tests.bus.asking import Asker, Got, assert_problem
from tests.bus.doors.binding import make_doors, with_doors
from tests.bus.doors.contracts.doors.keys import CheckKey, NewKey
from tests.counting import Counted

Statements = Callable[[], AbstractContextManager[Counted]]

CUT, CHECK, SHOW = "db.keys.cut", "db.keys.check", "db.keys.show"


@pytest.fixture(scope="session")
def registry() -> Registry:
    return with_doors(domain.registry())


@pytest_asyncio.fixture(autouse=True)
async def made(db: AsyncConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    await make_doors(db, monkeypatch)


async def door(ask: Asker, name: str = "front") -> str:
    return str((await ask("db.doors.create", {"name": name})).body["id"])


async def cut(ask: Asker, **body: Any) -> dict[str, Any]:
    got = await ask(CUT, body)
    assert got.status == 200, got.body
    return got.body


async def check(ask: Asker, token: str) -> dict[str, Any]:
    got = await ask(CHECK, {"token": token})
    assert got.status == 200, got.body
    return got.body


class TestByToken:
    async def test_all_that_it_leads_to(self, ask: Asker, db: AsyncConnection) -> None:
        front = await door(ask)
        paint = "INSERT INTO doors.door_paint (id, colour) VALUES (:id, 'red')"
        await db.execute(text(paint), {"id": front})
        made = await cut(ask, door_id=front, holder="Ada")

        got = await check(ask, made["token"])

        assert (got["valid"], got["key"]) == (True, made["key"])
        assert (got["holder"], got["door"], got["colour"]) == ("Ada", "front", "red")
        assert got["beside"] == ["KeyDetails", "Door", "DoorPaint"]
        assert got["key"]["tags"] == [{"text": "new"}]
        assert got["key"]["more"] == {"a": [1]}

    async def test_what_is_missing_is_none(self, ask: Asker) -> None:
        alone, unpainted = await cut(ask), await cut(ask, door_id=await door(ask))

        got = [await check(ask, made["token"]) for made in (alone, unpainted)]

        assert [one["valid"] for one in got] == [True, True]
        assert [one["beside"] for one in got] == [["KeyDetails"], ["KeyDetails", "Door"]]

    async def test_a_wrong_secret_an_unknown_id_and_no_row_beside_are_the_same(
        self, ask: Asker
    ) -> None:
        made, bare = await cut(ask, holder="Ada"), await cut(ask, holder=None)
        wrong = new_token("dkey", Token("dkey", uuid7(), b"").id)
        guesses = [
            new_token("dkey", _id(made)).text,
            wrong.text,
            bare["token"],
        ]

        got = [await check(ask, guess) for guess in guesses]

        for one in got:
            one.pop("at")
        assert got[0] == got[1] == got[2]
        assert (got[0]["valid"], got[0]["key"]) == (False, None)

    async def test_all_who_ask_at_once_are_answered_by_one_statement(
        self, ask: Asker, statements: Statements
    ) -> None:
        front = await door(ask)
        made = [await cut(ask, door_id=front, holder=str(n)) for n in range(5)]
        tokens = [one["token"] for one in made] + [new_token("dkey", uuid7()).text]

        with statements() as counted:
            got = await asyncio.gather(*(check(ask, token) for token in tokens * 3))

        assert counted.total <= 2
        assert [one["holder"] for one in got] == [*"01234", None] * 3
        with statements() as counted:
            assert (await check(ask, tokens[0]))["door"] == "front"
        assert counted.total == 1

    async def test_the_clock_is_that_of_the_database(self, ask: Asker, db: AsyncConnection) -> None:
        """Also where nothing is found."""
        before = (await db.execute(text("SELECT clock_timestamp()"))).scalar_one()

        got = await check(ask, new_token("dkey", uuid7()).text)

        after = (await db.execute(text("SELECT clock_timestamp()"))).scalar_one()
        assert before < datetime.fromisoformat(got["at"]) < after

    async def test_of_what_is_no_token_nothing_is_said_again(self, ask: Asker) -> None:
        made = await cut(ask)
        token = made["token"]
        head, secret = token[:42], token[42:]
        wrong = [
            "",
            "dkey",
            secret,
            token.upper(),
            f" {token}",
            f"{token}\n",
            f"{token}=",
            token[:-1],
            f"fbs{token[4:]}",
            f"dkey_{uuid7().hex}_{secret}",
            f"{head.replace('-', '_')}{secret}",
            f"{token[:-1]}{_next(token[-1])}",
            f"{head}{'+' * 43}",
            5,
            None,
            [token],
        ]

        got: list[Got] = [await ask(CHECK, {"token": one}) for one in wrong]

        for one in got:
            assert_problem(one, 400, "invalid_request")
            [error] = one.body["errors"]
            assert error["field"] == "token"
            assert error["message"].endswith("must be a token, dkey_<id>_<secret>")
            assert secret not in one.data.decode()

    async def test_its_secret_is_kept_nowhere(self, ask: Asker, db: AsyncConnection) -> None:
        token = parse_token("dkey", (await cut(ask))["token"])
        assert token is not None

        kept = (await db.execute(text("SELECT secret_hash FROM doors.key_details"))).scalar_one()

        assert kept == secret_hash(token) != token.secret


class TestById:
    async def test_with_what_lies_beside(self, ask: Asker, statements: Statements) -> None:
        made = [await cut(ask, holder=holder) for holder in ("Ada", None)]

        with statements() as counted:
            got = [await ask(SHOW, {"id": one["key"]["id"]}) for one in made]

        assert [one.body["beside"] for one in got] == [["KeyDetails"], []]
        assert [one.body["key"] for one in got] == [one["key"] for one in made]
        assert counted.total == 2

    async def test_unknown(self, ask: Asker) -> None:
        known = (await cut(ask))["key"]["id"]

        there, gone = await asyncio.gather(
            *(ask(SHOW, {"id": id_}) for id_ in (known, str(uuid7())))
        )

        assert there.status == 200
        assert_problem(gone, 404, "key_not_found")

    async def test_gone_with_its_owner(self, ask: Asker, db: AsyncConnection) -> None:
        made = await cut(ask)

        await db.execute(text("DELETE FROM doors.keys"))

        rows = await db.execute(text("SELECT count(*) FROM doors.key_details"))
        assert rows.scalar_one() == 0
        assert not (await check(ask, made["token"]))["valid"]


class TestToken:
    def test_there_and_back(self) -> None:
        token = new_token("dkey", uuid7())

        read = parse_token("dkey", token.text)

        assert read is not None
        assert (read.id, read.secret) == (token.id, token.secret)
        assert len(token.secret) == 32
        assert base64.urlsafe_b64decode(token.text[42:] + "=") == token.secret

    def test_only_its_own_secret_is_the_same(self) -> None:
        token, other = new_token("dkey", uuid7()), new_token("dkey", uuid7())
        assert same_secret(token, secret_hash(token))
        assert not same_secret(token, secret_hash(other))
        assert not same_secret(token, token.secret)
        assert not same_secret(token, None)
        assert not same_secret(token, b"")

    def test_it_is_not_shown(self) -> None:
        token = new_token("dkey", uuid7())
        query = CheckKey(token=token)
        shown = f"{token} {token!r} {query} {query!r} {vars(query)}"
        assert str(token.id) in shown
        assert token.text[42:] not in shown
        assert repr(token.secret) not in shown

    def test_as_json_it_is_a_text(self) -> None:
        token = new_token("dkey", uuid7())
        query = CheckKey(token=token)
        assert query.model_dump() == {"token": token.text}
        assert CheckKey.model_validate_json(query.model_dump_json()).token.text == token.text
        for model in (CheckKey, NewKey):
            field = schema_of(model)["properties"]["token"]
            assert (field["type"], field["format"]) == ("string", "password")
            assert field["x-sensitive"] is True
            assert field["pattern"].startswith("^dkey_[0-9a-f]{8}-")

    def test_secrets_are_random(self) -> None:
        assert len({new_token("dkey", uuid7()).secret for _ in range(100)}) == 100


def _id(made: dict[str, Any]) -> Any:
    token = parse_token("dkey", made["token"])
    assert token is not None
    return token.id


def _next(letter: str) -> str:
    """Another last letter that means the same bytes."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return alphabet[alphabet.index(letter) + 1]
