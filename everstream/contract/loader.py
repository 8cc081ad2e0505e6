"""Loads the files of a model folder: `app.py` in the engine process, `input_schema.py` wherever requests are checked.

Anything that a model's code raises while it loads becomes a ModelLoadError with the file and line in that code.
"""

import functools
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from everstream.contract import inferless_module
from everstream.contract.request_fields import fields_of
from everstream.contract.schema import Schema, parse_schema
from everstream.errors import ModelLoadError

CLASS_NAME = "InferlessPythonModel"
APP, SCHEMA_FILE = "app.py", "input_schema.py"
_PACKAGE = Path(__file__).parent.parent


class ModelSchema(NamedTuple):
    """`check` is for what a schema can't express: it raises InvalidInput. None: the model has no such function.

    `is_streaming` is IS_STREAMING_OUTPUT, None if the file lacks it. `warnings` are about the schema, one line each.
    """

    inputs: Schema
    check: Callable[[dict[str, Any]], None] | None = None
    is_streaming: bool | None = None
    warnings: Sequence[str] = ()


class Declaration(NamedTuple):
    """What a folder declares besides its inputs, in `app.py` or `input_schema.py`.

    `is_resumable` (RESUMABLE): after an engine's death a generation may be run again from its beginning.
    `is_concurrent` (CONCURRENT): `infer` is async and shares nothing between calls, so many may run at once.
    `is_batched` (BATCH_SIZE): `infer` takes and returns a list. `stop_raises` (STOP_RAISES): see `HandlerOptions`.
    """

    is_streaming: bool | None = None
    is_resumable: bool = True
    is_concurrent: bool = False
    is_batched: bool = False
    stop_raises: bool = False


class Folder(NamedTuple):
    """A model folder, imported. `request_class`: the class of `@inferless.request`, if `app.py` has one."""

    path: Path
    model_class: Callable[[], Any]
    schema: ModelSchema
    declaration: Declaration
    request_class: Callable[..., Any] | None


def load_folder(path: Path) -> Folder:
    """Import both files. Inputs are declared in either. Raises ModelLoadError."""
    environ = dict(os.environ)
    has_schema_file = (path / SCHEMA_FILE).is_file()
    schema = load_schema(path) if has_schema_file else None
    app = _import(path, "app")
    model_class = getattr(app, CLASS_NAME, None)
    if not callable(model_class):
        raise ModelLoadError(f"{path / APP} has no class {CLASS_NAME}")
    request_class = inferless_module.request_class(app)
    if request_class is not None:
        if schema is None or not schema.inputs:
            schema = ModelSchema(fields_of(request_class))
    elif schema is None:
        raise ModelLoadError(f"{path / SCHEMA_FILE} does not exist, and {APP} has no class with @inferless.request")
    # `@inferless.config` puts its settings into the environment.
    set_by_model = {name: value for name, value in os.environ.items() if environ.get(name) != value}
    sources = [vars(sys.modules["input_schema"])] if has_schema_file else []
    return Folder(path, model_class, schema, _declaration(path, [*sources, vars(app), set_by_model]), request_class)


def load_schema(app_dir: Path, *, isolated: bool = False) -> ModelSchema:
    """Import `input_schema.py`. Raises ModelLoadError.

    `isolated`: forget its modules afterwards, because those of other folders may have the same names.
    """
    with _forgotten(app_dir) if isolated else nullcontext():
        module = _import(app_dir, "input_schema")
    warnings: list[str] = []
    with _located(app_dir / SCHEMA_FILE):
        inputs = parse_schema(getattr(module, "INPUT_SCHEMA", {}), warnings)
        return ModelSchema(
            inputs, getattr(module, "check_inputs", None), _flag([vars(module)], "IS_STREAMING_OUTPUT"), warnings
        )


def _declaration(app_dir: Path, sources: Sequence[Mapping[str, Any]]) -> Declaration:
    with _located(app_dir):
        declared = Declaration(
            is_streaming=_flag(sources, "IS_STREAMING_OUTPUT"),
            is_resumable=_flag(sources, "RESUMABLE") is not False,
            is_concurrent=bool(_flag(sources, "CONCURRENT")),
            is_batched=bool(_flag(sources, "IS_BATCHED_INPUT")) or _batch_size(sources) > 1,
            stop_raises=bool(_flag(sources, "STOP_RAISES")),
        )
        if declared.is_batched and declared.is_streaming:
            raise ModelLoadError("BATCH_SIZE and IS_STREAMING_OUTPUT = True can't go together: remove one of them")
    return declared


def _flag(sources: Sequence[Mapping[str, Any]], name: str) -> bool | None:
    value = _declared(sources, name)
    value = {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
    if not isinstance(value, bool | None):
        raise ModelLoadError(f"{name} must be True or False, got {value!r}")
    return value


def _batch_size(sources: Sequence[Mapping[str, Any]]) -> int:
    value = _declared(sources, "BATCH_SIZE")
    try:
        return 1 if value is None else int(value)
    except (TypeError, ValueError):
        raise ModelLoadError(f"BATCH_SIZE must be a whole number, got {value!r}") from None


def _declared(sources: Sequence[Mapping[str, Any]], name: str) -> Any:
    """The first source's value; None: no source has one."""
    return next((source[name] for source in sources if source.get(name) is not None), None)


@contextmanager
def _located(path: Path) -> Iterator[None]:
    try:
        yield
    except ModelLoadError as error:
        raise ModelLoadError(f"{path}: {error}") from None


@contextmanager
def load_errors(app_dir: Path, step: str) -> Iterator[None]:
    """Turn anything that the model's code raises in the body into a ModelLoadError."""
    try:
        yield
    except (ModelLoadError, KeyboardInterrupt):
        raise
    except BaseException as error:
        # Including SystemExit: a model that calls sys.exit() while it loads has not loaded.
        raise ModelLoadError(f"{_place(error, app_dir)}: {step} raised {_one_line(error)}") from error


def _import(app_dir: Path, name: str) -> ModuleType:
    path = app_dir / f"{name}.py"
    if not path.is_file():
        raise ModelLoadError(f"{path} does not exist")
    # Models import sibling modules by bare name, as they can on Inferless.
    if str(app_dir) not in sys.path:
        sys.path.insert(0, str(app_dir))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    if name == "app":
        inferless_module.install()
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with load_errors(app_dir, f"import {name}"):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _forgotten(app_dir: Path) -> Iterator[None]:
    """Undo what the body's imports from this folder left behind in `sys`. The modules live on in what uses them."""
    modules, path = dict(sys.modules), list(sys.path)
    try:
        yield
    finally:
        if str(app_dir) not in path:
            sys.path[:] = [entry for entry in sys.path if entry != str(app_dir)]
        for name, module in list(sys.modules.items()):
            is_new = modules.get(name) is not module
            if is_new and (name == "input_schema" or is_models_file(_origin(module), app_dir)):
                del sys.modules[name]
        sys.modules.update({name: module for name, module in modules.items() if name not in sys.modules})


def _origin(module: ModuleType) -> str:
    """Its file, or the folder of a package without one."""
    return str(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), ""))


def _place(error: BaseException, app_dir: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if is_models_file(frame.filename, app_dir)]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else str(app_dir / APP)


@functools.cache
def is_models_file(file: str, app_dir: Path) -> bool:
    """Whether this file is a part of the model, not of a library."""
    path = Path(file)
    # The repository's root is a model folder too, and contains this package and the virtual environment.
    is_elsewhere = "site-packages" in path.parts or path.is_relative_to(_PACKAGE)
    return file != "" and path.is_relative_to(app_dir) and not is_elsewhere


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
