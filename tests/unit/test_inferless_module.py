"""`import inferless` works without Inferless's SDK, and its decorated classes are found, with or without it."""

import importlib
import sys
from types import ModuleType

import pytest

from everstream.contract import inferless_module
from everstream.errors import ModelLoadError

SDK = """
def request(cls):
    cls._json_schema = {}
    return cls

response = request
"""


@pytest.fixture(autouse=True)
def fresh_import():
    """Each test imports `inferless` anew, and leaves nothing behind."""
    before = sys.modules.pop("inferless", None)
    yield
    sys.modules.pop("inferless", None)
    if before is not None:
        sys.modules["inferless"] = before


def install_sdk(folder, monkeypatch, source=SDK):
    (folder / "inferless.py").write_text(source)
    monkeypatch.syspath_prepend(folder)


def app_module(source):
    module = ModuleType("app")
    module.__file__ = "/model/app.py"
    exec(source, vars(module))
    return module


DECORATED = """
import inferless

@inferless.request
class Asked: ...

@inferless.response
class Answered: ...

class AskedMore(Asked): ...

Alias = Asked
"""


@pytest.mark.parametrize("has_sdk", [False, True])
def test_decorated_classes_are_found(tmp_path, monkeypatch, has_sdk):
    if has_sdk:
        install_sdk(tmp_path, monkeypatch)
    inferless_module.install()
    decorator = sys.modules["inferless"].request
    inferless_module.install()
    assert sys.modules["inferless"].request is decorator
    app = app_module(DECORATED)
    assert inferless_module.request_class(app) is app.Asked
    assert hasattr(app.Asked, "_json_schema") == has_sdk


def test_undecorated_module_has_none():
    inferless_module.install()
    app = app_module("class Asked: ...")
    assert inferless_module.request_class(app) is None


def test_two_request_classes_are_refused():
    inferless_module.install()
    app = app_module(DECORATED + "\n@inferless.request\nclass Other: ...\n")
    with pytest.raises(
        ModelLoadError, match=r"^/model/app.py: only one class .*@inferless.request, but Asked and Other"
    ):
        inferless_module.request_class(app)


def test_broken_sdk_is_the_models_error(tmp_path, monkeypatch):
    install_sdk(tmp_path, monkeypatch, "raise ImportError('no dill')")
    inferless_module.install()
    with pytest.raises(ImportError, match="no dill"):
        importlib.import_module("inferless")


def test_decorators_return_what_they_get():
    inferless_module.install()
    app = app_module(
        """
import inferless
app = inferless.Cls(gpu="T4")

class Model:
    @app.load
    def initialize(self): return "loaded"

    @app.infer
    def infer(self, inputs): return inputs

@inferless.method(gpu="T4")
def remote(value): return value

@inferless.local_entry_point
def local(): return "here"
"""
    )
    assert (app.Model().initialize(), app.Model().infer(1), app.remote(2), app.local()) == ("loaded", 1, 2, "here")
    assert app.Model.initialize._is_loader and app.Model.infer._is_infer and app.local._is_local_entry_point
    assert app.app.gpu == "T4"


@pytest.mark.parametrize("name", ["call", "call_async"])
def test_calls_need_the_sdk(name):
    inferless_module.install()
    inferless = importlib.import_module("inferless")
    with pytest.raises(RuntimeError, match=f"inferless.{name} .*pip install inferless"):
        getattr(inferless, name)("https://example.invalid", data={})


def test_other_names_need_the_sdk():
    inferless_module.install()
    inferless = importlib.import_module("inferless")
    with pytest.raises(AttributeError, match=r"no 'Volume'.*pip install inferless"):
        inferless.Volume  # noqa: B018
