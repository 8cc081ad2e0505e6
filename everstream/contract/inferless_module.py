"""Makes `import inferless` work in a model's code, and finds the request and response classes that it declares.

In: a loaded `app.py`. Out: its classes, and the inputs that they declare as schema fields. If Inferless's SDK is
installed, models get that, otherwise `inferless_stand_in`. The loader calls `install` before it imports `app.py`, and
`request_class` after.
"""

import importlib
import importlib.util
import sys
from contextlib import suppress
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from everstream.errors import ModelLoadError

_NAME = "inferless"
_STAND_IN = "everstream.contract.inferless_stand_in"
_ROLES = ("request", "response")
_role_of: WeakKeyDictionary[type, str] = WeakKeyDictionary()


def install() -> None:
    """Call this before `app.py` is imported, with the model's folder on sys.path. A second call does nothing."""
    if _NAME not in sys.modules and importlib.util.find_spec(_NAME) is None:
        sys.modules[_NAME] = importlib.import_module(_STAND_IN)
    # If the SDK can't be imported, a model that uses it says so itself; others need not care.
    with suppress(Exception):
        _record_roles(importlib.import_module(_NAME))


def request_class(module: ModuleType) -> type | None:
    """The class that `@inferless.request` decorates. Raises ModelLoadError if there are several."""
    return _decorated(module, "request")


class _Recorder:
    """Wraps one of the two decorators. The SDK's own give requests and responses the same mark."""

    def __init__(self, role: str, decorator: Any) -> None:
        self._role = role
        self._decorator = decorator

    def __call__(self, cls: type) -> Any:
        decorated = self._decorator(cls)
        _role_of[decorated] = self._role
        return decorated


def _record_roles(sdk: ModuleType) -> None:
    for role in _ROLES:
        decorator = getattr(sdk, role)
        if not isinstance(decorator, _Recorder):
            setattr(sdk, role, _Recorder(role, decorator))


def _decorated(module: ModuleType, role: str) -> type | None:
    classes = dict.fromkeys(value for value in vars(module).values() if isinstance(value, type))
    found = [cls for cls in classes if _role_of.get(cls) == role]
    if len(found) > 1:
        names = " and ".join(cls.__name__ for cls in found)
        raise ModelLoadError(f"{module.__file__}: only one class may have @inferless.{role}, but {names} have it")
    return found[0] if found else None
