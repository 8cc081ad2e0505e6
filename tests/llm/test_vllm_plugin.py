"""The vLLM plugin, in which an exception would keep every vLLM process from starting."""

import importlib
import sys
import time

import pytest

from everstream.llm import vllm_plugin

pytestmark = pytest.mark.usefixtures("vllm")


@pytest.fixture
def on_cpu(monkeypatch, vllm):
    from vllm.platforms import current_platform

    monkeypatch.setenv(vllm_plugin.SLEEP_VARIABLE, "1")
    monkeypatch.delenv(vllm_plugin.ENGINE_PID_VARIABLE, raising=False)
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda self: True)


def test_vllm_processes_sleep_instead_of_spinning(on_cpu, monkeypatch):
    waiting = importlib.import_module(vllm_plugin.WAITING)
    monkeypatch.setattr(waiting, "sched_yield", waiting.sched_yield)
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    vllm_plugin.register()
    waiting.sched_yield()
    assert slept == [vllm_plugin.SLEEP_S]


def test_missing_module_is_logged(on_cpu, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, vllm_plugin.WAITING, None)
    vllm_plugin.register()
    assert "processes spin" in caplog.text


def test_missing_function_is_logged(on_cpu, monkeypatch, caplog):
    monkeypatch.delattr(importlib.import_module(vllm_plugin.WAITING), "sched_yield")
    vllm_plugin.register()
    assert "processes spin" in caplog.text
