"""Checks a model folder: `everstream check PATH`.

In: a folder. Out: on the terminal, what it declares as a table, and the outputs of `infer` for the schema's examples.
Runs the model in this process, through the same adapter as the engine, without Valkey or a web server.
"""

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from everstream.contract import inputs, runtime_config
from everstream.contract.loader import ModelSchema
from everstream.contract.model import LoadedModel, in_words, load_model
from everstream.contract.output_handler import HandlerOptions, StreamOutputHandler
from everstream.contract.schema import Field
from everstream.errors import InvalidInput, ModelLoadError
from everstream.log.entries import encode_json
from everstream.settings import Settings

LINE_CHARS = 200
"""Of an output, which may be megabytes of base64."""
_HEADINGS = ("input", "datatype", "shape", "required", "example")


def main(path: Path, settings: Settings) -> int:
    """Print what was found. Returns the exit status: 1 if the model does not work."""
    if not path.is_dir():
        _say(f"fail | {path} does not exist, or is not a folder")
        return 1
    # Models open files by paths relative to their folder.
    os.chdir(path)
    try:
        return asyncio.run(_check(path, settings))
    except ModelLoadError as error:
        _say(f"fail | {error}")
        return 1


async def _check(path: Path, settings: Settings) -> int:
    for finding in runtime_config.check(path):
        _say(f"note | {finding}")
    model = load_model(path)
    for line in (*_table(model.folder.schema), "", *_facts(model)):
        _say(line)
    await model.initialize()
    try:
        return await _infer(model, settings)
    finally:
        await model.finalize()


async def _infer(model: LoadedModel, settings: Settings) -> int:
    given = examples(model.folder.schema, settings.max_prompt_chars)
    _say(f"infer({encode_json(given).decode()[:LINE_CHARS]})")
    outcome = await _run(model, given, settings)
    _say(outcome)
    return int(not outcome.startswith("done"))


async def _run(model: LoadedModel, given: dict[str, Any], settings: Settings) -> str:
    """The end of a generation, in words."""
    sink = _Printer()
    options = HandlerOptions(settings.max_output_bytes, model.declaration.stop_raises)
    handler = StreamOutputHandler(sink, [], [], options)
    inferring = asyncio.create_task(model.infer(given, handler))
    ending = asyncio.create_task(sink.ended.wait())
    limit_s = settings.infer_idle_timeout_s or None
    ended, _ = await asyncio.wait([inferring, ending], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    if not ended:
        return f"fail | the model did not end within {limit_s:g} s (EVERSTREAM_INFER_IDLE_TIMEOUT_S)"
    if inferring.done() and (error := inferring.exception()):
        return f"fail | the model raised {in_words(error)}"
    await ending
    handler.stop()
    still_running = await model.wait_until_idle(settings.infer_stop_timeout_s)
    return f"fail | {still_running}" if still_running else sink.end_in_words


class _Printer:
    """A `Sink` that prints each output."""

    def __init__(self) -> None:
        self.end_in_words = ""
        self.ended = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._count = 0

    @property
    def writable(self) -> asyncio.Event:
        return self._writable

    def put(self, output: bytes, resume: bytes, joinable: int) -> None:  # noqa: ARG002 - the protocol's
        self._count += 1
        text = output.decode()
        _say(text if len(text) <= LINE_CHARS else f"{text[:LINE_CHARS]}… ({len(output)} bytes)")

    def progress(self) -> None:
        pass

    def end(self, state: str, data: dict[str, Any]) -> None:
        outputs = "1 output" if self._count == 1 else f"{self._count} outputs"
        self.end_in_words = f"{state} | {outputs}, finish_reason {data['finish_reason']}"
        self.ended.set()

    def reject(self, data: dict[str, Any]) -> None:
        self.end_in_words = f"fail | {data['code']}: {data['message']}"
        self.ended.set()


def examples(schema: ModelSchema, max_chars: int) -> dict[str, Any]:
    """All of the schema's examples, or only those of the required inputs if the model can't take all at once.

    Raises ModelLoadError if the schema's own examples are not valid.
    """
    given = {name: field.example for name, field in schema.inputs.items() if field.example is not None}
    try:
        try:
            return _valid(given, schema, max_chars)
        except InvalidInput:
            return _valid(inputs.example(schema.inputs), schema, max_chars)
    except InvalidInput as error:
        raise ModelLoadError(f"the examples in INPUT_SCHEMA are not valid: {error.message}") from None


def _valid(given: dict[str, Any], schema: ModelSchema, max_chars: int) -> dict[str, Any]:
    checked = inputs.from_json(given, schema.inputs, max_chars)
    if schema.check is not None:
        schema.check(checked)
    return checked


def _table(schema: ModelSchema) -> Iterator[str]:
    if not schema.inputs:
        yield "the model takes no inputs"
        return
    rows = [_HEADINGS, *(_row(name, field) for name, field in schema.inputs.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    yield from (_joined(row, widths) for row in rows)


def _joined(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(name: str, field: Field) -> tuple[str, ...]:
    example = "" if field.example is None else encode_json(field.example).decode()
    return name, field.datatype, str(field.shape), "yes" if field.required else "no", example[:60]


def _facts(model: LoadedModel) -> Iterator[str]:
    declared = model.declaration
    yield "ok   | answers " + ("piece by piece (streaming)" if model.is_streaming else "in one piece")
    yield "ok   | runs " + ("many requests at once" if declared.is_concurrent else "one request at a time")
    if not declared.is_resumable:
        yield "note | RESUMABLE = False: a generation does not survive an engine's death"
    yield from (f"note | {warning}" for warning in model.folder.schema.warnings)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
