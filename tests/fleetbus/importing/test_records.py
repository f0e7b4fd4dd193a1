import json
from pathlib import Path

import pytest

from fleetbus.importing.plan import Note, Plan, PlanUnreadable
from fleetbus.importing.records import (
    MAX_DESCRIPTION,
    MAX_DESCRIPTION_BYTES,
    MAX_NAME,
    MAX_REF,
    Record,
    RecordUnreadable,
    external_ref,
    parse_json,
    read_text,
)


def record(**fields: object) -> tuple[Record, list[Note]]:
    notes: list[Note] = []
    return Record("r", fields, notes), notes


class TestText:
    def test_what_the_database_cannot_keep_is_replaced_and_noted(self) -> None:
        read, notes = record(title="a\x00b\ud800c")
        assert read.text("title") == "a\ufffdb\ufffdc"
        assert [note.text for note in notes] == [
            "title had 2 characters that cannot be stored, now U+FFFD"
        ]

    def test_a_real_pair_of_surrogates_is_one_character(self) -> None:
        read, notes = record(title="\U0001f91d")
        assert (read.text("title"), notes) == ("\U0001f91d", [])

    def test_what_is_too_long_is_cut_and_noted(self) -> None:
        read, notes = record(title="x" * (MAX_NAME + 1))
        assert len(read.name()) == MAX_NAME
        assert read.name().endswith(" of 501 characters")
        assert read.whole_name() == "x" * 501
        assert [note.text for note in notes] == ["title was cut from 501 to 500 characters"]

    def test_no_text_is_left_out_and_noted(self) -> None:
        read, notes = record(notes=["a"])
        assert read.text("notes") == ""
        assert notes == [Note("r", "notes is not a text and was left out")]

    @pytest.mark.parametrize("title", [None, "", "  \n"])
    def test_a_record_without_a_title_is_named_by_its_id(self, title: str | None) -> None:
        read, notes = record(title=title)
        assert (read.name(), len(notes)) == ("r", 1)


class TestDescribed:
    def test_each_section_under_its_heading(self) -> None:
        read, _ = record(design="How.", notes="", criteria=["One.", {"two": 2}])
        sections = read.sections_of(design="Design", notes="Notes", criteria="Criteria")
        assert read.description_of([("", "What."), *sections]) == (
            'What.\n\n## Design\n\nHow.\n\n## Criteria\n\n- One.\n- {"two":2}'
        )

    def test_of_what_is_too_long_the_longest_section_is_cut(self) -> None:
        read, notes = record()
        description = read.description_of([("", "x" * MAX_DESCRIPTION), ("Design", "How.")])
        assert len(description) <= MAX_DESCRIPTION
        assert " … cut: " in description
        assert description.endswith("## Design\n\nHow.")
        assert len(notes) == 1

    def test_it_is_measured_as_json_too(self) -> None:
        read, notes = record()
        description = read.description_of([("", "\x1b" * MAX_DESCRIPTION)])
        assert len(json.dumps(description)) <= MAX_DESCRIPTION_BYTES
        assert len(notes) == 1

    def test_many_long_sections_fit_too(self) -> None:
        read, _ = record()
        half = "x" * (MAX_DESCRIPTION // 2)
        description = read.description_of([(f"Part {n}", half) for n in range(300)])
        assert len(description) <= MAX_DESCRIPTION


class TestListed:
    @pytest.mark.parametrize(
        ("value", "line"),
        [
            ("ana", "- Who: ana"),
            (["db", "ui"], "- Who: db, ui"),
            (["db", 7, None], "- Who: db, 7, null"),
            (30, "- Who: 30"),
            ({"a": 1}, '- Who: {"a":1}'),
            ("two\nlines\x00", "- Who: two lines\ufffd"),
            ("", ""),
            ([], ""),
            (None, ""),
        ],
    )
    def test_any_value_is_one_line(self, value: object, line: str) -> None:
        read, _ = record(who=value)
        assert read.bullets(who="Who") == line


class TestNotKept:
    def test_what_nobody_has_read(self) -> None:
        read, _ = record(title="T", colour="red", empty="", no=False, parent="p")
        read.name()
        assert list(read.not_kept({"parent"})) == [Note("r", "colour is not kept")]


class TestExternalRef:
    def test_a_long_id_ends_in_a_digest(self) -> None:
        one, other = external_ref("x" * 300 + "1"), external_ref("x" * 300 + "2")
        assert len(one) == len(other) == MAX_REF
        assert one != other
        assert one == external_ref("x" * 300 + "1")

    def test_it_can_be_encoded(self) -> None:
        assert external_ref(" \ud800\x00 ").encode() == "\ufffd\ufffd".encode()


class TestParseJson:
    @pytest.mark.parametrize("text", ["{", "nonsense", "[" * 100_000, "9" * 5_000])
    def test_whatever_is_wrong_is_one_error(self, text: str) -> None:
        with pytest.raises(RecordUnreadable, match=r"^not JSON: "):
            parse_json(text)

    def test_says_where(self) -> None:
        with pytest.raises(RecordUnreadable, match="at line 2, column 3"):
            parse_json("{\n  nonsense}")


class TestReadText:
    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(PlanUnreadable, match=r"none\.jsonl cannot be read: No such file"):
            read_text(tmp_path / "none.jsonl")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(PlanUnreadable, match="cannot be read"):
            read_text(tmp_path)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"\x89PNG\xff", r"is not UTF-8 text \(byte 0\)"),
            ("{}".encode("utf-16"), "is not UTF-8 text"),
            (b"SQLite format 3\x00", "is a binary file"),
        ],
    )
    def test_no_text(self, tmp_path: Path, content: bytes, reason: str) -> None:
        (tmp_path / "f").write_bytes(content)
        with pytest.raises(PlanUnreadable, match=reason):
            read_text(tmp_path / "f")

    def test_bytes_that_are_no_text_within_a_plan_are_kept_for_a_note(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b'{"title": "caf\xe9"}')
        assert read_text(tmp_path / "f") == '{"title": "caf\udce9"}'

    def test_a_byte_order_mark_is_no_content(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"\xef\xbb\xbf{}")
        assert read_text(tmp_path / "f") == "{}"


def test_an_empty_plan_has_a_summary() -> None:
    plan = Plan("p", 0, (), (), (), (), (), (), (), ())
    assert set(plan.summary().values()) == {0}
