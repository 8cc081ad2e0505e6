"""The same guarantees when vLLM's internals have changed, so that tokens come from its public API.

Builds on `test_llm`: the same stack, prompts and checks, with an engine whose vLLM has one parameter renamed.
"""

import shutil

import pytest

from everstream.settings import PROJECT_ROOT
from harness.stack import START_TIMEOUT_S, wait_for
from tests.llm import test_llm

RENAMED = """
from vllm.v1.engine.output_processor import OutputProcessor


def add_request(self, new_request, *more, known=OutputProcessor.add_request):
    known(self, new_request, *more)


OutputProcessor.add_request = add_request
"""
NEW_NAME = "OutputProcessor.add_request takes (self, new_request"
SAME = [
    test_llm.test_answer,
    test_llm.test_seed_makes_sampling_repeatable,
    test_llm.test_stop_frees_the_engine,
]


@pytest.fixture(scope="module")
def public(llm, undisturbed, tmp_path_factory):
    """The stack of `test_llm`, its engine replaced by one with a modified vLLM."""
    folder = tmp_path_factory.mktemp("changed")
    (folder / "app.py").write_text(RENAMED + (PROJECT_ROOT / "app.py").read_text())
    shutil.copy(PROJECT_ROOT / "input_schema.py", folder)
    before = llm.environ["EVERSTREAM_APP_DIR"]
    llm.environ["EVERSTREAM_APP_DIR"] = str(folder)
    llm.engines[-1].stop()
    engine = llm.start_engine()
    wait_for(lambda: "ready: " in engine.output, START_TIMEOUT_S, "a ready model")
    yield llm
    llm.environ["EVERSTREAM_APP_DIR"] = before


@pytest.fixture(autouse=True)
def is_public(public):
    """Each engine of these tests has warned once about what differs and what that costs."""
    yield
    warnings = [
        line for line in public.engines[-1].output.splitlines() if "is not the version that Everstream expects" in line
    ]
    assert len(warnings) == 1
    assert NEW_NAME in warnings[0] and "tokens come from AsyncLLM.generate() instead" in warnings[0]


@pytest.mark.parametrize("check", SAME, ids=lambda check: check.__name__)
def test_same_as_with_the_known_vllm(public, check):
    check(public)


def test_coalescing_gives_the_same_answer_in_fewer_events(public, undisturbed):
    test_llm.test_coalescing_gives_the_same_answer_in_fewer_events(public, undisturbed)


def test_engine_killed_mid_answer(public, undisturbed):
    """`undisturbed` comes from the known vLLM: stop strings, characters split across tokens, limits and usage."""
    test_llm.test_engine_killed_mid_answer(public, undisturbed, "VLLM::EngineCore")
