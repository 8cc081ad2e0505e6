"""vLLM with the real demo model: answers, stop strings, context limits, cancels, and engine crashes mid-answer.

In float32 at temperature 0, so that prompt + delivered tokens continue exactly as the undisturbed run did.
"""

import re

import anthropic
import psutil
import pytest
import requests
from playwright.sync_api import expect

from harness.answers import EMOJI, PROMPTS, outcome, submit_all
from harness.sse_client import assert_whole, connect, read_all, text_of
from harness.stack import wait_for
from tests.browser.chat_page import ChatPage

DEMO = "smollm2-135m-instruct"
ANSWER_TIMEOUT_MS = 240_000
"""For an answer of any length; generous, because the machine may be busy."""


def test_tokens_take_the_fast_path(llm):
    """The tests below rely on it; `test_llm_public` covers the slower path."""
    assert "is not the version that Everstream expects" not in llm.engines[0].output


def test_answer(llm):
    events = read_all(f"{llm.url}/stream?prompt=Why+is+the+sky+blue%3F&temperature=0&max_tokens=20")
    assert_whole(events)
    assert "sky" in text_of(events)
    usage = events[-1].json["usage"]
    assert events[-1].json["finish_reason"] == "length"
    assert (usage["completion_tokens"], usage["total_tokens"]) == (20, usage["prompt_tokens"] + 20)


def test_text_split_across_tokens_arrives_whole(undisturbed):
    text, ended, end = undisturbed[0]
    assert EMOJI in text
    assert (ended, end["finish_reason"]) == ("done", "stop")
    assert end["usage"]["completion_tokens"] > len(text)


def test_coalescing_gives_the_same_answer_in_fewer_events(llm, undisturbed):
    assert undisturbed[4] == undisturbed[3]
    events = {
        flush_ms: read_all(f"{llm.url}/stream?prompt=Count+to+30&temperature=0&max_tokens=30&flush_ms={flush_ms}")
        for flush_ms in (0, 1000)
    }
    for each in events.values():
        assert_whole(each)
    assert outcome(events[0]) == outcome(events[1000])
    assert len(events[1000]) < len(events[0])


def test_stop_string_ends_the_answer_and_is_not_shown(undisturbed):
    text, _, end = undisturbed[5]
    assert "7" in text and "8" not in text
    assert end["finish_reason"] == "stop"


@pytest.mark.parametrize("victim", ["engine", "VLLM::EngineCore"])
def test_engine_killed_mid_answer(llm, undisturbed, victim):
    generations = submit_all(llm)
    engine = llm.engines[-1]
    with connect(llm.events_url(generations[3])) as stream:
        stream.read(until=lambda seen: len(seen.events) > 12)
        children = engine.children()
        if victim == "engine":
            engine.kill()
        else:
            next(child for child in children if victim in " ".join(child.cmdline())).kill()
        wait_for(lambda: engine.popen.poll() is not None, what="the end of the engine process")
        # No child process is left to hold GPU memory.
        assert psutil.wait_procs(children, timeout=30)[1] == []
        cut = [len(llm.show(generation)["text"]) for generation in generations]
        llm.start_engine()
        first = stream.read().events
    assert "resumed" in [event.type for event in first]
    assert 0 < cut[3] < len(undisturbed[3][0])
    for generation, expected in zip(generations, undisturbed, strict=True):
        events = read_all(llm.events_url(generation))
        assert_whole(events)
        assert outcome(events) == expected


def test_stop_frees_the_engine(llm):
    generation = llm.submit(prompt="Tell a very long story", max_tokens=2000, temperature=0)
    with connect(llm.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(seen.events) > 5)
        wait_for(lambda: model_requests(llm) == 1, what="vLLM to report the request")
        assert requests.delete(f"{llm.url}/generations/{generation}", timeout=30).status_code == 202
        assert stream.read().events[-1].type == "cancelled"
    wait_for(lambda: llm.running() == model_requests(llm) == 0, what="an idle engine")


def model_requests(stack):
    """The number of requests in vLLM, by its own count."""
    return sum(engine["model_requests"] for engine in stack.readiness()["engines"] if engine["state"] == "ready")


def test_metrics_of_the_cache(llm):
    """vLLM keeps a prompt's cache, and finds it again."""

    def counted():
        return [llm.metric(f"prefix_cache_{name}_total") for name in ("queries", "hits")]

    # What other tests have asked may be counted meanwhile, so these are the least.
    queries, hits = counted()
    question = {"prompt": "What do you know about caches? " * 20, "max_tokens": 1, "temperature": 0}
    events = [read_all(llm.events_url(llm.submit(**question))) for _ in range(2)]
    prompt = events[0][-1].json["usage"]["prompt_tokens"]
    wait_for(lambda: counted()[0] - queries >= 2 * prompt, what="both prompts to be looked up")
    # Whole blocks are found.
    wait_for(lambda: counted()[1] - hits >= prompt - 128, what="the second prompt to be found")
    assert counted()[1] < counted()[0]
    generation = llm.submit(prompt="Tell a very long story", max_tokens=2000, temperature=0)
    usage = re.compile(r"everstream_engine_cache_usage{[^}]*} 0?[.][0-9]*[1-9]")
    wait_for(lambda: usage.search(requests.get(f"{llm.url}/metrics", timeout=30).text), what="the cache to be used")
    assert requests.delete(f"{llm.url}/generations/{generation}", timeout=30).status_code == 202


@pytest.mark.parametrize("way", [{}, {"logprobs": True}], ids=["plain text", "with vLLM's own answer"])
def test_prompt_over_the_models_context(llm, way):
    answer = requests.post(f"{llm.url}/generations", json={"prompt": "word " * 3000, **way}, timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "prompt")
    # The words that clients such as litellm look for.
    assert "maximum context length is 2048 tokens" in error["message"]


def test_prompt_over_the_byte_bound(llm):
    answer = requests.post(f"{llm.url}/generations", json={"prompt": "x" * 190_000}, timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "prompt")
    # Refused without tokenizing: the demo model's longest token has 81 bytes.
    assert "190000 bytes" in error["message"] and str(2047 * 81) in error["message"]


def test_long_prompt_that_fits_is_accepted(llm):
    prompt = "word " * 1500
    events = read_all(llm.events_url(llm.submit(prompt=prompt, max_tokens=2, temperature=0)))
    assert events[-1].json["usage"]["completion_tokens"] == 2


def test_seed_makes_sampling_repeatable(llm):
    """Also in a batch with an unseeded request: before 0.29, vLLM on a CPU ignored the seeds of such a batch."""
    url = f"{llm.url}/stream?prompt=Name+a+color&seed=7&temperature=1&top_p=0.9&top_k=50&max_tokens=12"
    alone = outcome(read_all(url))
    other = llm.submit(prompt="Tell a very long story", max_tokens=1500, ignore_eos=True)
    wait_for(lambda: llm.show(other)["text"], what="the start of the other answer")
    assert outcome(read_all(url)) == alone
    assert llm.show(other)["state"] == "running"
    requests.delete(f"{llm.url}/generations/{other}", timeout=30)
    wait_for(lambda: llm.running() == 0, what="an idle engine")


def test_system_prompt_is_used(llm):
    def prompt_tokens(**inputs):
        return read_all(llm.events_url(llm.submit(**inputs, max_tokens=1)))[-1].json["usage"]["prompt_tokens"]

    as_messages = [{"role": "system", "content": "Be terse"}, {"role": "user", "content": "Hi"}]
    assert prompt_tokens(prompt="Hi", system="Be terse") == prompt_tokens(messages=as_messages)
    assert prompt_tokens(prompt="Hi") != prompt_tokens(messages=as_messages)


@pytest.fixture(scope="module")
def messages(llm):
    """Anthropic's own client."""
    with anthropic.Anthropic(base_url=llm.url, api_key="none", max_retries=0) as client:
        yield client.messages


def chat(client, prompt, **more):
    """The text, finish reason and usage of an answer through OpenAI's API."""
    model, messages = client.models.list().data[0].id, [{"role": "user", "content": prompt}]
    options = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0, "extra_body": more}
    chunks = list(client.chat.completions.create(model=model, messages=messages, **options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    return text, reasons[-1], chunks[-1].usage.model_dump(exclude_none=True)


def test_openai_client_gets_the_same_answer(llm, client):
    native = read_all(llm.events_url(llm.submit(prompt="Why is the sky blue?", temperature=0, max_tokens=20)))
    expected = (text_of(native), "length", native[-1].json["usage"])
    assert chat(client, "Why is the sky blue?", max_tokens=20) == expected


def test_anthropic_client_gets_the_same_answer(llm, messages):
    native = read_all(llm.events_url(llm.submit(prompt="Why is the sky blue?", temperature=0, max_tokens=20)))
    request = {"model": DEMO, "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
    options = {"max_tokens": 20, "extra_body": {"temperature": 0}}
    whole = messages.create(**request, **options)
    assert whole.content[0].text == text_of(native)
    assert (whole.stop_reason, whole.usage.output_tokens) == ("max_tokens", 20)
    with messages.stream(**request, **options) as stream:
        assert stream.get_final_message().model_dump(exclude={"id"}) == whole.model_dump(exclude={"id"})
    assert messages.count_tokens(**request).input_tokens == whole.usage.input_tokens


def test_anthropic_client_forces_a_tool(messages):
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    request = {"model": DEMO, "messages": [{"role": "user", "content": "Where is the Colosseum?"}], "max_tokens": 100}
    tools = {"tools": [{"name": "weather", "input_schema": schema}], "tool_choice": {"type": "any"}}
    whole = messages.create(**request, **tools, extra_body={"temperature": 0})
    with messages.stream(**request, **tools, extra_body={"temperature": 0}) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        (call,) = message.content
        assert (message.stop_reason, call.name) == ("tool_use", "weather")
        assert call.input in ({"city": "Paris"}, {"city": "Rome"})
    assert streamed.content[0].input == whole.content[0].input


def test_an_answer_continues_the_assistants_last_words(messages):
    counting = [{"role": "user", "content": "Count to ten"}, {"role": "assistant", "content": "1, 2, 3, 4,"}]
    request = {"model": DEMO, "messages": counting, "max_tokens": 4, "extra_body": {"temperature": 0}}
    assert messages.create(**request).content[0].text.lstrip().startswith("5")


def test_a_budget_for_thinking_does_not_bother_a_model_that_does_not_think(messages):
    request = {"model": DEMO, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
    message = messages.create(**request, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block.type for block in message.content] == ["text"]


def test_what_the_model_cant_do_is_the_clients_error(messages):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aWk="}}
    request = {"model": DEMO, "messages": [{"role": "user", "content": [image]}], "max_tokens": 20}
    with pytest.raises(anthropic.BadRequestError, match="not a multimodal model"):
        messages.create(**request)
    with pytest.raises(anthropic.BadRequestError, match="not a multimodal model"):
        messages.create(**request, stream=True)


def test_plain_completion_has_no_chat_template(client):
    model = client.models.list().data[0].id
    chunks = list(
        client.completions.create(model=model, prompt="One, two, three,", stream=True, temperature=0, max_tokens=5)
    )
    assert "four" in "".join(chunk.choices[0].text for chunk in chunks)


def test_ignore_eos_continues_to_max_tokens(client):
    short, reason, _ = chat(client, "Say only: yes", max_tokens=60)
    assert reason == "stop"
    long, _, usage = chat(client, "Say only: yes", max_tokens=60, ignore_eos=True)
    assert usage["completion_tokens"] == 60
    assert long.startswith(short)


def test_text_split_across_tokens_arrives_whole_in_the_page(llm, page, undisturbed):
    chat = ChatPage(page, llm.url).open(f"/#g={llm.submit(**PROMPTS[0], temperature=0)}")
    expect(chat.status).to_have_text("Done", timeout=ANSWER_TIMEOUT_MS)
    assert chat.answer == undisturbed[0][0]


def test_page_with_the_real_model(llm, page, artifacts):
    chat = ChatPage(page, llm.url)
    chat.open().button("Settings").click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Maximum length (tokens)").fill("40")
    chat.button("Done").click()
    chat.ask("What is the capital of France?")
    expect(chat.status).to_have_text("Streaming", timeout=ANSWER_TIMEOUT_MS)
    expect(chat.status).to_contain_text("Done", timeout=ANSWER_TIMEOUT_MS)
    assert "Paris" in chat.answer
    page.screenshot(path=artifacts / "page-answer.png")


def test_idle_engine_exits_when_its_core_dies(llm):
    """It must not claim generations that it can't run. The log says what happened to vLLM."""
    engine = llm.engines[-1]
    next(child for child in engine.children() if "VLLM::EngineCore" in " ".join(child.cmdline())).kill()
    wait_for(lambda: engine.popen.poll() is not None, what="the end of the engine process")
    llm.start_engine()
    assert "vLLM's process EngineCore was killed by SIGKILL" in engine.output
    assert engine.popen.returncode == 4
