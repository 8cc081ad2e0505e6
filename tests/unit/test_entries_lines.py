"""Lines of a log: any entries come back as they were, and damage is noticed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstream.contract.outputs import encode_output
from everstream.log.entries import TAIL_BYTES, decode_lines, encode_entry, encode_json, encode_lines, last_n

JSON = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=5)
ENTRIES = st.lists(st.tuples(st.text(max_size=5), JSON, st.none() | JSON), min_size=1, max_size=8)


def encoded(entries):
    return [
        (encode_entry(event, data), b"" if resume is None else encode_json(resume)) for event, data, resume in entries
    ]


@given(ENTRIES, st.integers(1, 10**15))
def test_entries_come_back_as_they_were(entries, first):
    lines = encode_lines(first, encoded(entries))
    found = decode_lines(lines, first)
    assert [entry.n for entry in found] == list(range(first, first + len(entries)))
    assert [(entry.event, entry.data) for entry in found] == [(event, encode_json(data)) for event, data, _ in entries]
    assert [entry.resume for entry in found] == [resume for _, resume in encoded(entries)]
    assert last_n(lines[-TAIL_BYTES:]) == first + len(entries) - 1


LINES = encode_lines(3, [(b'["",1]', b""), (b'["",2]', b"[1]")])


@pytest.mark.parametrize(
    "lines", [LINES[:-1], LINES + LINES, LINES.replace(b"\n", b""), b"something else", b"\n", LINES + b"x"]
)
def test_damaged_lines_are_refused(lines):
    with pytest.raises(ValueError, match="entry 3"):
        decode_lines(lines, 3)


def test_json_that_a_model_has_made_itself_stays_in_its_line():
    output = encode_output({"text": msgspec.Raw(b'{ "a":\n\t[1,  "\\n"]}')})
    assert output == b'{"text":{"a":[1,"\\n"]}}'
