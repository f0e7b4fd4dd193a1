"""Laws of secrets: where a sensitive field may be, what must be said, and where it is not shown."""

from collections.abc import Iterator

import pytest

from bus.contract import JsonObject, Reply, Request, Sensitive, Text
from bus.contract.refusals import DeclarationError
from bus.contract.schemas import schema_of
from bus.contract.sensitive import all_sensitive_fields
from contracts.agents.accounts import Credentials, SetAccountCredentials
from fleetbus import domain
from tests.laws.declaring import CONTRACT, execute, forgotten


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    with forgotten():
        yield


def refused(source: str) -> str:
    with pytest.raises(DeclarationError) as refusal:
        execute(source, CONTRACT)
    return str(refusal.value)


WAVE = 'class WaveTask({}):\n    """Wave."""\n    {}'


class TestDeclared:
    @pytest.mark.parametrize(
        "field",
        [
            "password: Sensitive[Text]",
            "password: Sensitive[Text] | None = None",
            "password: list[Sensitive[Text]]",
            "password: dict[str, Sensitive[JsonObject | None]]",
        ],
    )
    @pytest.mark.parametrize("kind", ["Command", "Query"])
    def test_a_request_with_a_secret_says_it(self, kind: str, field: str) -> None:
        message = refused(WAVE.format(f'{kind}[Task], subject="db.tasks.wave"', field))
        assert message == "WaveTask needs secret=True: password is sensitive"

    @pytest.mark.parametrize("reply", ["Waved", "Waves"])
    def test_a_reply_with_a_secret_says_it(self, reply: str) -> None:
        replies = (
            "class Waved(Reply):\n    token: Sensitive[Text]\n"
            "class Waves(Reply):\n    items: list[Waved]\n"
        )
        message = refused(replies + WAVE.format(f'Query[{reply}], subject="db.tasks.wave"', "pass"))
        assert message == "WaveTask needs secret=True: token is sensitive"

    def test_a_secret_command_says_what_it_needs(self) -> None:
        said = 'Command[Task], subject="db.tasks.wave", secret=True'
        message = refused(WAVE.format(said, "password: Sensitive[Text]"))
        assert message.startswith("WaveTask is secret and needs CredentialsUnreadable")

    def test_a_secret_query_needs_nothing(self) -> None:
        said = 'Query[Task], subject="db.tasks.wave", secret=True'
        declared = execute(WAVE.format(said, "password: Sensitive[Text]"), CONTRACT)["WaveTask"]
        assert declared.declared.secret

    def test_no_event_holds_one(self) -> None:
        message = refused(
            'class TaskWaved(Event, type="task.waved"):\n'
            '    """Waved."""\n    task: Task\n    token: Sensitive[Text]'
        )
        assert message == "TaskWaved: token is sensitive, and events are not"

    def test_no_entity_holds_one(self) -> None:
        message = refused(
            "class Wave(Entity, not_found=TaskNotFound):\n"
            '    """A wave."""\n    token: Sensitive[Text]'
        )
        assert message == "Wave: token is sensitive, and kept apart"

    def test_those_that_are_secret(self) -> None:
        secret = {o.declared.subject for o in domain.catalogue().operations if o.declared.secret}
        assert secret == {"db.accounts.set_credentials", "db.accounts.reveal_credentials"}


class Inner(Reply):
    name: Text
    token: Sensitive[Text]


class Outer(Request):
    inner: Inner
    secrets: list[Sensitive[Text]] | None = None
    config: Sensitive[JsonObject] | None = None


class TestShown:
    def test_not_by_repr(self) -> None:
        inner = Inner(name="known", token="hidden")
        outer = Outer(inner=inner, secrets=["hidden"], config={"hidden": 1})

        assert repr(outer) == "Outer(inner=Inner(name='known'))"
        assert "hidden" not in f"{outer} {outer!r} {inner}"
        assert all_sensitive_fields(Outer) == {"token", "secrets", "config"}

    def test_its_schema_says_what_it_is(self) -> None:
        request, reply = schema_of(SetAccountCredentials), schema_of(Credentials)
        inner = schema_of(Inner)["properties"]["token"]

        asked, told = (one["properties"]["credentials"] for one in (request, reply))
        assert (asked["x-sensitive"], asked["writeOnly"]) == (True, True)
        assert (told["x-sensitive"], "writeOnly" in told) == (True, False)
        assert (inner["type"], inner["format"]) == ("string", "password")
