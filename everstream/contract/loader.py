"""Loads the files of a model folder: `app.py` in the engine process, `input_schema.py` wherever requests are checked.

Anything that a model's code raises while it loads becomes a ModelLoadError with the file and line in that code.
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast

from everstream.contract.schema import Schema, parse_schema
from everstream.errors import ModelLoadError

CLASS_NAME = "InferlessPythonModel"
_PACKAGE = Path(__file__).parent.parent


class ModelSchema(NamedTuple):
    """`check` is for what a schema can't express: it raises InvalidInput. None: the model has no such function.

    `warnings` are about the schema, one line each. `is_streaming`: the model answers piece by piece.
    """

    inputs: Schema
    check: Callable[[dict[str, Any]], None] | None = None
    warnings: Sequence[str] = ()
    is_streaming: bool = True


def load_model_class(app_dir: Path) -> Callable[[], Any]:
    """Import `app.py` and find its class. Raises ModelLoadError."""
    module = _import(app_dir, "app")
    model_class = getattr(module, CLASS_NAME, None)
    if not callable(model_class):
        raise ModelLoadError(f"{app_dir / 'app.py'} has no class {CLASS_NAME}")
    return cast(Callable[[], Any], model_class)


def load_schema(app_dir: Path) -> ModelSchema:
    """Import `input_schema.py`. Raises ModelLoadError."""
    module = _import(app_dir, "input_schema")
    warnings: list[str] = []
    try:
        inputs = parse_schema(getattr(module, "INPUT_SCHEMA", {}), warnings)
    except ModelLoadError as error:
        raise ModelLoadError(f"{app_dir / 'input_schema.py'}: {error}") from None
    is_streaming = bool(getattr(module, "IS_STREAMING_OUTPUT", True))
    return ModelSchema(inputs, getattr(module, "check_inputs", None), warnings, is_streaming)


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
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with load_errors(app_dir, f"import {name}"):
        spec.loader.exec_module(module)
    return module


def _place(error: BaseException, app_dir: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_the_models(Path(frame.filename), app_dir)]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else str(app_dir / "app.py")


def _is_the_models(path: Path, app_dir: Path) -> bool:
    # The repository's root is a model folder too, and contains this package and the virtual environment.
    is_elsewhere = "site-packages" in path.parts or path.is_relative_to(_PACKAGE)
    return path.is_relative_to(app_dir) and not is_elsewhere


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
