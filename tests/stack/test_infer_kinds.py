"""Every way in which models of the contract declare `infer`, in engine processes of their own: a folder for each."""

import inspect

import pytest

from harness.sse_client import assert_whole, read_all
from harness.stack import running_stack
from tests.unit import test_infer_kinds as kinds

WHOLE = "IS_STREAMING_OUTPUT = False\n"
STREAMING = "IS_STREAMING_OUTPUT = True\n"
BOTH = [{"x": "a"}, {"x": "b"}]
PLAIN = [
    kinds.plain,
    kinds.with_default,
    kinds.other_name_with_default,
    kinds.keyword_only,
    kinds.star_args,
    kinds.star_keywords,
    kinds.coroutine,
    kinds.generator,
    kinds.async_generator,
]
WRAPPED = [kinds.plain, kinds.coroutine, kinds.async_generator]
CONCURRENT = [kinds.coroutine, kinds.async_generator]
RETURNING = [kinds.returning, kinds.returning_async, kinds.returning_with_unused_default]


def source(infer, wrapper=None):
    """An `app.py` whose class has this function as its method."""
    parts = ["import asyncio, functools\n", *map(inspect.getsource, filter(None, (kinds.send_both, infer, wrapper)))]
    wrapped = f"{wrapper.__name__}({infer.__name__})" if wrapper else infer.__name__
    return "\n".join([*parts, f"class InferlessPythonModel:\n    infer = {wrapped}\n"])


def batched(self, inputs):
    return [{"x": each["x"].upper()} for each in inputs]


def folders():
    """The files of each model, by name, and what it sends."""
    for infer in PLAIN:
        yield infer.__name__, source(infer), STREAMING, BOTH
    for infer in WRAPPED:
        yield f"wrapped.{infer.__name__}", source(infer, kinds.undecorated_wrapper), STREAMING, BOTH
    for infer in CONCURRENT:
        yield f"concurrent.{infer.__name__}", "CONCURRENT = True\n" + source(infer), STREAMING, BOTH
    for infer in RETURNING:
        yield infer.__name__, source(infer), WHOLE, BOTH[:1]
    yield "batched", source(batched), WHOLE + "BATCH_SIZE = 4\n", [{"x": "A"}]


MODELS = {name: (app, declaration, outputs) for name, app, declaration, outputs in folders()}


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    for name, (app, declaration, _) in MODELS.items():
        (folder / name).mkdir()
        (folder / name / "app.py").write_text(app)
        schema = 'INPUT_SCHEMA = {"x": {"datatype": "STRING", "required": True, "shape": [1], "example": ["x"]}}\n'
        (folder / name / "input_schema.py").write_text(schema + declaration)
    models = {name: folder / name for name in MODELS}
    with running_stack(folder, models=models, WEB_CONCURRENCY="1") as stack:
        yield stack


@pytest.mark.parametrize("name", MODELS)
def test_outputs(stack, name):
    events = read_all(f"{stack.url}/stream?model={name}&x=a")
    assert_whole(events)
    assert [event.json for event in events if event.type == "message"] == MODELS[name][2]
    assert events[-1].type == "done"
