"""The same promises where vLLM's internals are not as they were known, so that tokens come from its public API.

Stands on `test_llm`: the same stack, prompts and checks, with an engine whose vLLM has one parameter renamed.
"""

import shutil

import pytest

from everstream.settings import REPO_ROOT
from tests import test_llm
from tests.stack import START_TIMEOUT_S, wait_for

RENAMED = """
from vllm.v1.engine.output_processor import OutputProcessor


def add_request(self, new_request, *more, known=OutputProcessor.add_request):
    known(self, new_request, *more)


OutputProcessor.add_request = add_request
"""
NEW_NAME = "OutputProcessor.add_request takes (self, new_request"
SAME = [
    test_llm.test_an_answer,
    test_llm.test_a_seed_makes_sampling_repeatable,
    test_llm.test_stop_frees_the_engine,
]


@pytest.fixture(scope="module")
def public(llm, undisturbed, tmp_path_factory):
    """The stack of `test_llm`, with the chat model over a changed vLLM in place of whichever engine it had."""
    folder = tmp_path_factory.mktemp("changed")
    (folder / "app.py").write_text(RENAMED + (REPO_ROOT / "app.py").read_text())
    shutil.copy(REPO_ROOT / "input_schema.py", folder)
    before = llm.environ["EVERSTREAM_APP_DIR"]
    llm.environ["EVERSTREAM_APP_DIR"] = str(folder)
    llm.engines[-1].stop()
    engine = llm.start_engine()
    wait_for(lambda: "ready: " in engine.output, START_TIMEOUT_S, "a ready model")
    yield llm
    llm.environ["EVERSTREAM_APP_DIR"] = before


@pytest.fixture(autouse=True)
def is_public(public):
    """Each engine of these tests has said, once, what differs and what that costs."""
    yield
    said = [line for line in public.engines[-1].output.splitlines() if "is not as Everstream knows it" in line]
    assert len(said) == 1
    assert NEW_NAME in said[0] and "tokens come from AsyncLLM.generate() instead" in said[0]


@pytest.mark.parametrize("check", SAME, ids=lambda check: check.__name__)
def test_as_with_the_vllm_that_is_known(public, check):
    check(public)


def test_paced_it_is_the_same_answer_in_fewer_events(public, undisturbed):
    test_llm.test_paced_it_is_the_same_answer_in_fewer_events(public, undisturbed)


def test_a_death_in_mid_answer(public, undisturbed):
    """What `undisturbed` has came through the known vLLM: stop strings, characters over tokens, limits and usage."""
    test_llm.test_the_engine_is_killed_in_mid_answer(public, undisturbed, "VLLM::EngineCore")
