"""Outputs of the libraries that models use: NumPy's, torch's and pydantic's own types."""

import numpy as np
import pydantic
import pytest
import torch

from everstream.contract.outputs import OutputSchema, encode_output
from harness.stack import wait_for


class Answer(pydantic.BaseModel):
    score: float


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (np.float32(0.5), b"0.5"),
        (np.float64(0.5), b"0.5"),
        (np.int8(-3), b"-3"),
        (np.uint64(2**64 - 1), b"18446744073709551615"),
        (np.bool_(True), b"true"),
        (np.str_("a"), b'"a"'),
        (np.bytes_(b"\x00\xff"), b'"AP8="'),
        (np.array([[1, 2], [3, 4]], dtype=np.int16), b"[[1,2],[3,4]]"),
        (np.array(["a", "b"]), b'["a","b"]'),
        (np.datetime64("2026-01-02"), b'"2026-01-02"'),
        ({"deep": [np.float16(1.5)]}, b'{"deep":[1.5]}'),
        (torch.tensor([1.5, 2.5], dtype=torch.bfloat16), b"[1.5,2.5]"),
        (torch.tensor(3), b"3"),
        (Answer(score=0.5), b'{"score":0.5}'),
    ],
)
def test_encoding(value, encoded):
    assert encode_output({"x": value}) == b'{"x":' + encoded + b"}"


@pytest.mark.parametrize(
    "value", [np.float32("nan"), np.array([1, np.inf]), torch.tensor([float("nan")]), Answer(score=float("inf"))]
)
def test_number_that_json_lacks(value):
    with pytest.raises(ValueError, match="'x' holds"):
        encode_output({"x": value})


def test_scalars_of_a_library_have_the_types_of_json():
    schema = OutputSchema()
    values = (1, np.int64(2), np.float32(0.5), torch.tensor(3))
    assert [schema.change_in({"x": value}) for value in values] == [""] * 4
    assert "is a boolean now" in schema.change_in({"x": np.bool_(True)})


APP = """
import datetime

import numpy as np


class InferlessPythonModel:
    def infer(self, inputs):
        return {
            "array": np.array([[1, 2], [3, 4]], dtype=np.int16),
            "scalar": np.float32(0.5),
            "bytes": bytes([0, 255]),
            "when": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        }
"""


def test_types_in_a_real_engine(own_stack, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "app.py").write_text(APP)
    (tmp_path / "model" / "input_schema.py").write_text("IS_STREAMING_OUTPUT = False\n")
    stack = own_stack(app_dir=tmp_path / "model").start()
    generation = stack.submit()
    outputs = wait_for(lambda: stack.show(generation).get("outputs"))
    whole = {"array": [[1, 2], [3, 4]], "scalar": 0.5, "bytes": "AP8=", "when": "2026-01-02T00:00:00Z"}
    assert outputs == [whole]
