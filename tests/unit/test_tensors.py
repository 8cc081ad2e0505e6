"""Tensors of the Open Inference Protocol: requests' inputs, in JSON and in bytes, and models' outputs."""

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstream.apis.inferless import binary, compression, outputs, requests
from everstream.apis.inferless.encoders import GenerateEncoder, InferEncoder
from everstream.contract import inputs
from everstream.contract.schema import parse_schema
from everstream.errors import InvalidInput
from everstream.log.entries import Entry, encode_json
from everstream.log.records import Generation
from everstream.web.sse import Queued
from harness.sse_client import Decoder

GENERATION = Generation("0f" * 16, "open", "org/model", 0)


def schema_of(**fields):
    return parse_schema({name: {"datatype": kind, "shape": shape} for name, (kind, shape) in fields.items()}, [])


SCHEMA = schema_of(
    text=("STRING", [1]),
    texts=("BYTES", [-1]),
    flag=("BOOL", [1]),
    flags=("BOOL", [-1]),
    byte=("UINT8", [1]),
    numbers=("INT32", [-1]),
    real=("FP32", [1]),
    reals=("FP64", [-1]),
    grid=("FP32", [2, 3]),
    rows=("INT8", [-1, 2]),
    open=("INT8", [-1, -1]),
    settings=("JSON", [1]),
)


def parsed(name, shape, datatype, data, schema=SCHEMA):
    """The value of one tensor, after all checks."""
    body = {"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]}
    return inputs.from_json(requests.infer(encode_json(body), None, schema).values, schema, 10).get(name)


@pytest.mark.parametrize(
    ("tensor", "value"),
    [
        (("text", [1], "BYTES", ["a"]), "a"),
        (("text", [1, 1], "string", [["a"]]), "a"),
        (("text", [1, 1], "BYTES", ["a"]), "a"),
        (("text", [], "BYTES", ["a"]), "a"),
        (("text", [1], "BYTES", [None]), None),
        (("texts", [2], "BYTES", ["a", "b"]), ["a", "b"]),
        (("texts", [1, 2], "BYTES", ["a", "b"]), ["a", "b"]),
        (("texts", [1, 2], "BYTES", [["a", "b"]]), ["a", "b"]),
        (("texts", [0], "BYTES", []), []),
        (("flag", [1], "BOOL", [True]), True),
        (("flag", [1], "INT32", [True]), True),
        (("flag", [1], "INT8", [0]), False),
        (("flags", [2], "BOOLEAN", [True, False]), [True, False]),
        (("byte", [1], "INT64", [255]), 255),
        (("numbers", [3], "UINT64", [1, 2, 3]), [1, 2, 3]),
        (("real", [1], "INT", [1]), 1.0),
        (("real", [1], "FP16", [1]), 1.0),
        (("reals", [2], "BF16", [1, 2.5]), [1.0, 2.5]),
        (("grid", [2, 3], "FP32", [[1, 2, 3], [4, 5, 6]]), [[1, 2, 3], [4, 5, 6]]),
        (("grid", [2, 3], "INT8", [1, 2, 3, 4, 5, 6]), [[1, 2, 3], [4, 5, 6]]),
        (("grid", [6], "FP32", [1, 2, 3, 4, 5, 6]), [[1, 2, 3], [4, 5, 6]]),
        (("grid", [1, 1, 2, 3], "FP32", [1, 2, 3, 4, 5, 6]), [[1, 2, 3], [4, 5, 6]]),
        (("rows", [2, 2], "INT8", [1, 2, 3, 4]), [[1, 2], [3, 4]]),
        (("open", [2, 2], "INT8", [1, 2, 3, 4]), [[1, 2], [3, 4]]),
        (("settings", [1], "BYTES", ['{"a": [1]}']), {"a": [1]}),
    ],
)
def test_tensor_as_input(tensor, value):
    found = parsed(*tensor)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (("text", [1], "FP32", [1]), "text has the datatype 'FP32'; allowed are BYTES"),
        (("byte", [1], "FP32", [1.0]), "byte has the datatype 'FP32'; allowed are INT16"),
        (("byte", [1], "INT8", [-1]), "byte must be from 0 to 255, got -1"),
        (("byte", [1], "INT64", [256]), "byte must be from 0 to 255, got 256"),
        (("byte", [1], "INT64", [1.5]), "data of byte does not fit its datatype"),
        (("flag", [1], "FP32", [1]), "flag has the datatype"),
        (("flag", [1], "INT8", [2]), "flag must be true or false, got 2"),
        (("real", [1], "BOOL", [True]), "real has the datatype"),
        (("real", [1], "FP32", [True]), "data of real does not fit its datatype"),
        (("texts", [3], "BYTES", ["a"]), "data of texts has 1 items, but its shape is [3]"),
        (("texts", [2], "BYTES", [["a", "b"]]), "nested differently than its shape [2]"),
        (("texts", [2, 2], "BYTES", [["a"], ["b", "c"]]), "nested differently than its shape [2, 2]"),
        (("texts", [1], "BYTES", "a"), "texts needs data, an array"),
        (("texts", [1], "BYTES", {"0": "a"}), "texts needs data, an array"),
        (("texts", [2, 2], "BYTES", ["a", "b", "c", "d"]), "texts must have the shape [-1], got [2, 2]"),
        (("grid", [3, 2], "FP32", [1, 2, 3, 4, 5, 6]), "grid must have the shape [2, 3]"),
        (("grid", [2, 2], "FP32", [1, 2, 3, 4]), "grid must have the shape [2, 3]"),
        (("settings", [2], "BYTES", ["1", "2"]), "settings takes one value, so its shape must be [1]; got [2]"),
        (("text", [1], "BYTES", [["a"] * 9]), "nested differently"),
        (("text", [1], "BYTES", [[[[[[[[["a"]]]]]]]]]), "nested more than 8 deep"),
    ],
)
def test_tensor_that_is_no_input(tensor, message):
    with pytest.raises(InvalidInput) as raised:
        parsed(*tensor)
    assert message in raised.value.message
    assert raised.value.param == tensor[0]


# Binary data.

STRUCT = {"BOOL": "<?", "FP16": "<e", "FP32": "<f", "FP64": "<d"} | {
    f"{sign}INT{bits}": "<" + (code.upper() if sign else code)
    for sign in ("", "U")
    for bits, code in zip((8, 16, 32, 64), "bhiq", strict=True)
}


def assert_same(found, expected):
    """NaN equals NaN, and 0 differs from -0."""
    assert [str(number) for number in found] == [str(number) for number in expected]


@pytest.mark.parametrize("datatype", STRUCT)
@given(data=st.binary(max_size=64))
def test_binary_numbers(datatype, data):
    kind = struct.Struct(STRUCT[datatype])
    data = data[: len(data) // kind.size * kind.size]
    if datatype == "BOOL":
        data = bytes(byte % 2 for byte in data)
    expected = [number for (number,) in kind.iter_unpack(data)]
    assert_same(binary.items("a", datatype, data, len(expected)), expected)
    with pytest.raises(InvalidInput):
        binary.items("a", datatype, data, len(expected) + 1)


@given(st.lists(st.floats(width=32)))
def test_binary_bfloat16_is_half_a_float(numbers):
    packed = [struct.pack("<f", number) for number in numbers]
    expected = [struct.unpack("<f", b"\0\0" + number[2:])[0] for number in packed]
    assert_same(binary.items("a", "BF16", b"".join(number[2:] for number in packed), len(numbers)), expected)


@given(st.lists(st.text()))
def test_binary_texts(texts):
    data = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    assert binary.items("a", "BYTES", data, len(texts)) == texts
    for wrong in (data + b"\0", data[:-1], data + b"\1\0\0\0"):
        if wrong != data:
            with pytest.raises(InvalidInput):
                binary.items("a", "BYTES", wrong, len(texts))


@given(st.binary(), st.integers(0, 10), st.sampled_from([*STRUCT, "BF16", "BYTES"]))
def test_any_binary_data_is_read_or_refused(data, count, datatype):
    try:
        found = binary.items("a", datatype, data, count)
    except InvalidInput as error:
        assert error.param == "a"
    else:
        assert len(found) == count


def test_many_elements_are_not_read_when_one_is_expected():
    with pytest.raises(InvalidInput, match="a has 2 elements, but its shape needs 1"):
        binary.items("a", "BYTES", b"\0\0\0\0" * 1_000_000, 1)


def binary_body(*tensors, json_size=None):
    """A request whose tensors are (name, shape, datatype, data)."""
    described = [
        {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
        for name, shape, datatype, data in tensors
    ]
    head = encode_json({"inputs": described})
    size = len(head) if json_size is None else json_size
    return head + b"".join(data for *_, data in tensors), str(size)


def test_binary_tensors_follow_each_other():
    body, size = binary_body(
        ("numbers", [2], "INT16", struct.pack("<2h", 1, -2)),
        ("unknown", [1], "FP32", b"abcd"),
        ("text", [1], "BYTES", b"\1\0\0\0a"),
        ("grid", [2, 3], "FP16", struct.pack("<6e", *range(6))),
        ("texts", [0], "BYTES", b""),
    )
    assert requests.infer(body, size, SCHEMA).values == {
        "numbers": [1, -2],
        "text": "a",
        "grid": [[0, 1, 2], [3, 4, 5]],
        "texts": [],
    }


def test_infinite_numbers_are_out_of_bounds():
    for number in (math.nan, math.inf, -math.inf):
        body, size = binary_body(("real", [1], "FP32", struct.pack("<f", number)))
        with pytest.raises(InvalidInput, match="real must be from"):
            inputs.from_json(requests.infer(body, size, SCHEMA).values, SCHEMA, 10)


@given(st.binary(max_size=200), st.integers(-5, 250), st.text(max_size=3))
def test_any_body_is_read_or_refused(body, size, text):
    for header in (None, str(size), text):
        with_json = b'{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}'
        for sent in (body, with_json + body):
            try:
                requests.infer(sent, header, SCHEMA)
            except InvalidInput as error:
                assert error.param and error.message


# Outputs.


@pytest.mark.parametrize(
    ("value", "datatype", "shape", "data"),
    [
        ("a\u2028", "BYTES", [1], ["a\u2028"]),
        ("", "BYTES", [1], [""]),
        (True, "BOOL", [1], [True]),
        (7, "INT64", [1], [7]),
        (-(2**63), "INT64", [1], [-(2**63)]),
        (2**64 - 1, "UINT64", [1], [2**64 - 1]),
        (1.0, "FP64", [1], [1.0]),
        (None, "BYTES", [1], ["null"]),
        ({"a": [1]}, "BYTES", [1], ['{"a":[1]}']),
        ([], "BYTES", [0], []),
        ([[], []], "BYTES", [2, 0], []),
        ([1, 2], "INT64", [2], [1, 2]),
        ([0, 2**64 - 1], "UINT64", [2], [0, 2**64 - 1]),
        ([1, 2.5], "FP64", [2], [1.0, 2.5]),
        ([1.0, 2.0], "FP64", [2], [1.0, 2.0]),
        ([True, False], "BOOL", [2], [True, False]),
        (["a", "b"], "BYTES", [2], ["a", "b"]),
        ([[1, 2, 3], [4, 5, 6]], "INT64", [2, 3], [1, 2, 3, 4, 5, 6]),
        ([[["a"]], [["b"]]], "BYTES", [2, 1, 1], ["a", "b"]),
        ([[1], [2, 3]], "BYTES", [1], ["[[1],[2,3]]"]),
        ([1, "a"], "BYTES", [1], ['[1,"a"]']),
        ([True, 1], "BYTES", [1], ["[true,1]"]),
        ([None], "BYTES", [1], ["[null]"]),
        ([{"a": 1}], "BYTES", [1], ['[{"a":1}]']),
        ([1, [2]], "BYTES", [1], ["[1,[2]]"]),
        ([-1, 2**64 - 1], "BYTES", [1], ["[-1,18446744073709551615]"]),
        ([[[[[[[[[1]]]]]]]]], "BYTES", [1], ["[[[[[[[[[1]]]]]]]]]"]),
    ],
)
def test_output_as_tensor(value, datatype, shape, data):
    (tensor,) = json.loads(encode_json(outputs.tensors(encode_json({"a": value}))))
    assert tensor == {"name": "a", "shape": shape, "datatype": datatype, "data": data}
    assert [type(item) for item in tensor["data"]] == [type(item) for item in data]


@pytest.mark.parametrize("row", [[1, 2], [], [["a"]], [True]])
def test_more_arrays_than_are_decoded(row):
    """The web process would stop for as long as that takes, and all its streams with it."""
    brackets = str(row).count("[")
    least = [row] * (outputs.MAX_ARRAYS // brackets)
    (tensor,) = outputs.tensors(encode_json({"a": least}))
    text = encode_json(least).decode()
    assert (tensor["datatype"], tensor["shape"], tensor["data"]) == ("BYTES", [1], [text])


def test_as_many_arrays_as_are_decoded():
    count = outputs.MAX_ARRAYS - 1
    (tensor,) = outputs.tensors(encode_json({"a": [[1]] * count}))
    assert (tensor["datatype"], tensor["shape"], tensor["data"]) == ("INT64", [count, 1], [1] * count)


def test_flat_array_of_any_length():
    count = outputs.MAX_ARRAYS + 1
    (tensor,) = outputs.tensors(encode_json({"a": ["["] * count}))
    assert (tensor["datatype"], tensor["shape"]) == ("BYTES", [count])


def test_integers_that_no_tensor_has():
    (tensor,) = json.loads(encode_json(outputs.tensors(b'{"a":18446744073709551616}')))
    assert (tensor["datatype"], tensor["data"]) == ("BYTES", ["18446744073709551616"])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_any_output_is_tensors_whose_data_fits_their_shape(output):
    tensors = json.loads(encode_json(outputs.tensors(encode_json(output))))
    assert [tensor["name"] for tensor in tensors] == list(output)
    for tensor in tensors:
        assert len(tensor["data"]) == math.prod(tensor["shape"])
        assert tensor["datatype"] in ("BYTES", "BOOL", "INT64", "UINT64", "FP64")


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ({"text": "a"}, "a"),
        ({"n": 1, "text": "a"}, "a"),
        ({"n": 1, "b": "x", "c": "y"}, "x"),
        ({"text": 1}, ""),
        ({}, ""),
    ],
)
def test_output_as_text(output, text):
    assert json.loads(outputs.text(encode_json(output))) == text


# Events.


def test_only_wanted_outputs_are_sent():
    encoder = InferEncoder(GENERATION, request_id='"', wanted=("b",))
    (event,) = Decoder().feed(encoder.token(3, b'{"a":1,"b":2}'))
    assert event.json["id"] == '"'
    assert [tensor["name"] for tensor in event.json["outputs"]] == ["b"]
    assert event.id == f"{GENERATION.id}.3"


@pytest.mark.parametrize(
    "encoders",
    [
        [InferEncoder(GENERATION, request_id="", wanted=wanted) for wanted in ((), ("a",), ("a", "b"), ("a', 'b",))],
        [InferEncoder(GENERATION, request_id=request_id, wanted=()) for request_id in ("", "1", "1' ()", "2")],
    ],
)
def test_encoders_with_the_same_format_encode_the_same(encoders):
    tokens = {encoder.format: encoder.token(1, b'{"a":1,"b":2,"a\', \'b":3}') for encoder in encoders}
    assert len(tokens) == len(encoders)


@pytest.mark.parametrize("split", [1, 3, 1000])
def test_a_data_line_of_generate_tells_how_it_ended(split):
    encoder = GenerateEncoder(GENERATION)
    entries = [
        (Entry(1, "", b'{"text":"a"}'), {"text_output": "a", "done": False}),
        (Entry(2, "done", b'{"finish_reason":"stop","usage":null}'), {"text_output": "", "done": True}),
        (Entry(2, "failed", b'{"code":"model_error","message":"it raised"}'), {"error": "it raised"}),
        (Entry(2, "cancelled", b'{"reason":"requested"}'), {"error": "the generation was stopped (requested)"}),
    ]
    for entry, expected in entries:
        wire, decoder = encoder.entry(entry), Decoder()
        (event,) = [event for at in range(0, len(wire), split) for event in decoder.feed(wire[at : at + split])]
        assert expected.items() <= event.json.items()
    # What is no response is a comment.
    for wire in (encoder.entry(Entry(1, "resumed", b'{"attempt":2}')), encoder.queued(Queued(3, 3)), encoder.heartbeat):
        assert Decoder().feed(wire) == []


# Compression.


@given(st.binary(), st.sampled_from(["gzip", "deflate", "GZIP "]), st.integers(0, 50))
def test_any_compressed_body_is_inflated_or_refused(body, encoding, most):
    try:
        found = compression.inflated(body, encoding, most)
    except InvalidInput as error:
        assert error.param == "body"
    else:
        assert len(found) <= most
