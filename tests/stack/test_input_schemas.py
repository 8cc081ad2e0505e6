"""A model's inputs as JSON Schema, and what is taken of them: the same."""

import itertools

import jsonschema_rs
import pytest

from everstream.contract import inputs
from everstream.contract.json_schema import in_body
from everstream.contract.schema import Field
from everstream.errors import InvalidInput

MOST = 4
FIELDS = {
    "text": Field("STRING", min_length=1, max_length=3),
    "prompt": Field("BYTES", is_prompt=True),
    "needed": Field("STRING", required=True),
    "flag": Field("BOOL"),
    "int8": Field("INT8"),
    "int64": Field("INT64"),
    "uint64": Field("UINT64", maximum=2**64 - 2),
    "positive": Field("INT32", minimum=1),
    "number": Field("FP32", minimum=-1, maximum=2),
    "texts": Field("STRING", [-1], max_items=2, min_length=1),
    "pair": Field("INT8", [2]),
    "grid": Field("FP64", [2, 2]),
    "row": Field("INT8", [1, 2]),
    "cell": Field("INT8", [1, 1]),
    "column": Field("INT8", [-1, 1], max_items=2),
    "table": Field("INT8", [-1, -1]),
    "pairs": Field("INT8", [-1, 2], max_items=4),
    "two_lists": Field("INT8", [2, -1], max_items=4),
    "json": Field("JSON"),
    "text_of_json": Field("STRING", format="json"),
}
VALUES = [
    *(None, True, False, "", "a", "abcd", "abcde"),
    *(0, 1, -1, 1.5, 127, 128, 2**31, -(2**63), 2**63 - 1, 2**63, 2**64 - 1, 1e300),
    *([], [""], ["a", "b"], ["a", "b", "c"], ["a", 1], [1, 2], [1, 2, 3]),
    *([1], [1, 2, 3, 4], [1, 2, 3, 4, 5], [[1, 2], [3, 4]], [[1, 2]], [[1]], [[1], [2]], [[1], [2], [3]], [[1, 2], 3]),
    *([[]], [[], []], [[1, 2]] * 3, [[1, 2, 3], [4, 5, 6]]),
    *({}, {"a": 1}),
]  # fmt: skip


def is_taken(name, value):
    try:
        inputs.from_json({name: value}, {name: FIELDS[name]}, MOST)
    except InvalidInput as error:
        assert error.param == name
        return False
    return True


@pytest.mark.parametrize(("name", "value"), list(itertools.product(FIELDS, VALUES)), ids=lambda each: str(each)[:20])
def test_schema_says_what_is_taken(name, value):
    field = FIELDS[name]
    is_valid = jsonschema_rs.is_valid(in_body(field, MOST), value)
    if is_valid or not is_more_than_shown(field, value):
        assert is_taken(name, value) == is_valid


def is_more_than_shown(field, value):
    """Whether it may be taken, although the schema says nothing of it: see `json_schema`."""
    if not isinstance(value, list) or field.datatype == "JSON":
        return False
    is_flat = not any(isinstance(item, list) for item in value)
    return is_flat if field.shape in ([-1, 2], [2, -1]) else not field.is_array and len(value) == 1
