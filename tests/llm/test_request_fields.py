"""The inputs that a model declares with a real pydantic class. Needs pydantic, which comes with vLLM."""

# Public models write the older forms too.
# ruff: noqa: UP006, UP007, UP035, UP045

import enum
import os
import sys
from typing import Annotated, Any, List, Literal, Optional, Union

import pytest
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from everstream.contract import inferless_module, inferless_stand_in, inputs
from everstream.contract.request_fields import fields_of
from everstream.contract.schema import JSON
from everstream.errors import InvalidInput, ModelLoadError

REQUIRED = ...


class Colour(enum.Enum):
    RED = "red"


class Nested(BaseModel):
    x: int
    more: "list[Nested]" = []


def declared(annotation, default=REQUIRED, **limits):
    """The schema field of a class whose only field is this one."""
    namespace = {"__annotations__": {"field": annotation}, "field": Field(default, **limits)}
    return fields_of(type("Request", (BaseModel,), namespace))["field"]


@pytest.mark.parametrize(
    ("annotation", "datatype", "shape"),
    [
        (str, "STRING", [1]),
        (int, "INT64", [1]),
        (float, "FP64", [1]),
        (bool, "BOOL", [1]),
        (bytes, "STRING", [1]),
        (list[str], "STRING", [-1]),
        (List[int], "INT64", [-1]),
        (set[float], "FP64", [-1]),
        (tuple[bool, ...], "BOOL", [-1]),
        (list[list[float]], "FP64", [-1, -1]),
        (Literal["a", "b"], "STRING", [1]),
        (Literal["a"], "STRING", [1]),
        (Literal[1, 2], "INT64", [1]),
        (Literal["a", 1], JSON, [1]),
        (Colour, "STRING", [1]),
        (list[Colour], "STRING", [-1]),
        (dict, JSON, [1]),
        (dict[str, int], JSON, [1]),
        (list, JSON, [1]),
        (list[dict], JSON, [1]),
        (tuple[int, str], JSON, [1]),
        (Nested, JSON, [1]),
        (list[Nested], JSON, [1]),
        (int | str, JSON, [1]),
        (Union[int, str, None], JSON, [1]),
        (Any, JSON, [1]),
    ],
)
def test_types(annotation, datatype, shape):
    found = declared(annotation)
    assert (found.datatype, found.shape) == (datatype, shape)
    optional = declared(Optional[annotation], None)
    assert (optional.datatype, optional.shape, optional.required, optional.example) == (datatype, shape, False, None)


def test_required_and_examples():
    assert (declared(str).required, declared(str).example) == (True, None)
    assert (declared(str, "a horse").required, declared(str, "a horse").example) == (False, "a horse")
    assert not declared(Optional[str]).required
    assert declared(str, examples=["b", "c"]).example == "b"
    assert declared(str, "a", json_schema_extra={"example": "d"}).example == "d"
    assert declared(Colour, Colour.RED).example == "red"
    # Public models declare lists with such defaults.
    assert declared(list[str], "Test output").example == "Test output"


def test_limits():
    assert declared(int, ge=1, le=5).bounds == (1, 5)
    assert declared(int, gt=1, lt=5).bounds == (2, 4)
    assert declared(float, ge=0, le=1).bounds == (0, 1)
    above, below = declared(float, gt=0, lt=1).bounds
    assert 0 < above < 1e-300 and 1 - 1e-15 < below < 1
    assert declared(Optional[Annotated[int, Field(ge=3)]], None).minimum == 3
    assert declared(list[Annotated[int, Field(le=3)]]).maximum == 3
    text = declared(str, min_length=1, max_length=5)
    assert (text.min_length, text.max_length, text.max_items) == (1, 5, None)
    array = declared(list[str], max_length=5)
    assert (array.max_length, array.max_items) == (None, 5)
    assert declared(Optional[list[str]], None, max_length=5).max_items == 5
    # `max_items` counts all numbers of a nested array; pydantic's limit counts rows.
    assert declared(list[list[int]], max_length=5).max_items is None


def test_names_are_those_of_the_constructor():
    class Request(BaseModel):
        text: str = Field("hi", alias="TEXT")

    assert list(fields_of(Request)) == ["TEXT"]
    assert Request(**{"TEXT": "a"}).text == "a"


def test_recursive_classes_and_types():
    assert {name: field.datatype for name, field in fields_of(Nested).items()} == {"x": "INT64", "more": JSON}
    assert declared(TypeAliasType("Deep", "list[Deep]")).datatype == JSON  # noqa: F821 - it is just being defined


class Opaque:
    """Pydantic can't describe it."""


def test_type_without_json_is_refused():
    class Request(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        field: Opaque = None

    with pytest.raises(ModelLoadError, match=r"^the inputs of Request can't be given in JSON: [^\n]*$"):
        fields_of(Request)


def test_other_class_is_refused():
    with pytest.raises(ModelLoadError, match="the inputs of Colour can't be given in JSON: AttributeError"):
        fields_of(Colour)


def test_requests_are_checked_and_constructed():
    """The way of a request: JSON, checked against the fields, into the class that the model gets."""
    sys.modules.pop("inferless", None)
    inferless_module.install()
    try:
        import inferless

        @inferless.request
        class Request(BaseModel):
            prompt: str = Field(default="a horse", max_length=10)
            steps: Optional[int] = Field(default=3, ge=1)
            sizes: List[int] = []
            options: dict = {}

        module = type(sys)("app")
        module.Request = Request
        found = inferless_module.request_class(module)
    finally:
        del sys.modules["inferless"]
    fields = fields_of(found)
    body = {"prompt": "a dog", "sizes": [1, 2], "options": {"a": {"b": [None]}}}
    request = found(**inputs.from_json(body, fields, 100))
    assert request.model_dump() == body | {"steps": 3}
    for wrong in ({"prompt": "x" * 11}, {"steps": 0}, {"sizes": ["a"]}, {"prompt": 1}, {"unknown": 1}):
        with pytest.raises(InvalidInput):
            inputs.from_json(wrong, fields, 100)
    assert inputs.example(fields) == {"prompt": "a horse"}


@pytest.mark.parametrize("decorate", [inferless_stand_in.config, inferless_stand_in.config()])
def test_config_sets_the_environment(decorate, monkeypatch):
    class Config(BaseModel):
        is_streaming_output: bool = True
        batch_size: int = Field(default_factory=lambda: 2)
        unset: Optional[str] = None
        required: int

    monkeypatch.setattr(os, "environ", {})
    assert decorate(Config) is Config
    assert os.environ == {"IS_STREAMING_OUTPUT": "True", "BATCH_SIZE": "2"}
