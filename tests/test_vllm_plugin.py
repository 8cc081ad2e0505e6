"""The vLLM plugin: an exception in it would keep every process of vLLM from starting."""

import importlib
import sys
import time

import pytest

from everstream import vllm_plugin

pytestmark = pytest.mark.usefixtures("vllm")


@pytest.fixture
def on_a_cpu(monkeypatch, vllm):
    from vllm.platforms import current_platform

    monkeypatch.setenv(vllm_plugin.SLEEP_VARIABLE, "1")
    monkeypatch.delenv(vllm_plugin.ENGINE_PID_VARIABLE, raising=False)
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda self: True)


def test_vllms_processes_sleep_where_they_would_spin(on_a_cpu, monkeypatch):
    waiting = importlib.import_module(vllm_plugin.WAITING)
    monkeypatch.setattr(waiting, "sched_yield", waiting.sched_yield)
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    vllm_plugin.register()
    waiting.sched_yield()
    assert slept == [vllm_plugin.SLEEP_S]


def test_a_module_that_is_gone_is_said(on_a_cpu, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, vllm_plugin.WAITING, None)
    vllm_plugin.register()
    assert "they spin" in caplog.text


def test_a_name_that_is_gone_is_said(on_a_cpu, monkeypatch, caplog):
    monkeypatch.delattr(importlib.import_module(vllm_plugin.WAITING), "sched_yield")
    vllm_plugin.register()
    assert "they spin" in caplog.text
