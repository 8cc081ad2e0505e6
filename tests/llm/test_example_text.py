"""The model folder examples/text: transformers streams the demo model's text, and the README's command works."""

import os
import runpy
import shutil

import pytest

from everstream.llm import demo_model
from everstream.settings import PROJECT_ROOT, load_settings
from harness.readme_commands import assert_printed, launched_example, read_example, run_commands
from harness.sse_client import assert_whole, read_all

EXAMPLE = PROJECT_ROOT / "examples" / "text"
# The libraries' own warnings are not ours to fix.
LIBRARIES_MAY_WARN = {"PYTHONWARNINGS": "default"}
TOKENS = 24


def kept_cache():
    """The setting that says where the demo model is, which a stack does not inherit."""
    return {name: value for name, value in os.environ.items() if name == "EVERSTREAM_CACHE_DIR"}


@pytest.mark.filterwarnings("ignore")
def greedy_text(prompt):
    """What transformers generates without a streamer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = demo_model.folder(load_settings(kept_cache()))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    messages = [{"role": "user", "content": prompt}]
    tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**tokens, do_sample=False, max_new_tokens=TOKENS)[0]
    return tokenizer.decode(answer[tokens["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.filterwarnings("ignore")
def test_text_equals_what_transformers_generates(own_stack):
    stack = own_stack(app_dir=EXAMPLE, **LIBRARIES_MAY_WARN, **kept_cache()).start()
    prompts = ["What is the capital of France?", "Name three colours."]
    generations = [stack.submit(TEXT=prompt, MAX_NEW_TOKENS=TOKENS) for prompt in prompts]
    for prompt, generation in zip(prompts, generations, strict=True):
        events = read_all(stack.events_url(generation))
        assert_whole(events)
        assert events[-1].type == "done", events[-1]
        pieces = [event.json["OUT"] for event in events if event.type == "message"]
        assert len(pieces) > 5
        assert "".join(pieces) == greedy_text(prompt)


@pytest.mark.filterwarnings("ignore")
def test_default_folder_is_the_demo_models(monkeypatch, tmp_path):
    for name in ("EVERSTREAM_CACHE_DIR", "XDG_CACHE_HOME", "TEXT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    assert default_folder() == str(demo_model.folder(load_settings({})))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == str(demo_model.folder(load_settings({})))
    monkeypatch.setenv("EVERSTREAM_CACHE_DIR", str(tmp_path / "cache"))
    assert default_folder() == str(demo_model.folder(load_settings(kept_cache())))


def default_folder():
    return runpy.run_path(str(EXAMPLE / "app.py"))["MODEL"]


def test_commands_of_the_readme(tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("curl is missing: apt-get install curl")
    example = read_example("text")
    with launched_example(tmp_path, example, **LIBRARIES_MAY_WARN, **kept_cache()) as stack:
        assert_printed(example.output, run_commands(stack, example, tmp_path))
