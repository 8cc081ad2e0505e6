"""Models that aren't chats: forms made from their schemas, and what they answer."""

import json

import pytest
from playwright.sync_api import expect

from harness.stack import MODELS
from tests.browser.chat_page import ChatPage


@pytest.fixture
def chat(page, several):
    return ChatPage(page, several.url).open()


def choose(chat, name):
    chat.page.get_by_label("Model").select_option(name)


def field(chat, name):
    return chat.page.locator("#fields").get_by_label(name, exact=True)


def send(chat):
    chat.button("Send").click()


def lines(chat):
    return chat.replies.last.locator(".outputs").evaluate("element => element.textContent").split("\n")[:-1]


def outputs(chat):
    """Of the model `echo`: each line is the JSON of one output."""
    return [(output["input"], json.loads(output["json"])) for output in map(json.loads, lines(chat))]


def test_no_choice_of_a_single_model(page, fast):
    chat = ChatPage(page, fast.url).open()
    expect(page.get_by_label("Model")).to_be_disabled()
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    chat.expect_status("Ready")


def test_names_and_states_of_the_models(chat):
    expect(chat.page.get_by_label("Model")).to_have_value("say")
    names = chat.page.get_by_label("Model").locator("option").all_text_contents()
    assert names == ["say", "echo", "absent (loading)"]


def test_form_from_the_schema(chat, artifacts):
    choose(chat, "echo")
    expect(chat.page.get_by_label("Message", exact=True)).to_be_hidden()
    expect(field(chat, "text")).to_have_value("Say it out loud")
    speed = field(chat, "speed (optional)")
    expect(speed).to_have_attribute("placeholder", "1.25")
    assert [speed.get_attribute(name) for name in ("type", "min", "max", "value")] == ["number", "0.5", "2", None]
    speed.fill("1.5")
    field(chat, "seed (optional)").fill(str(2**63 - 1))
    field(chat, "voices (optional)").fill('["<b>bold</b>", "b\\u2028"]')
    field(chat, "is_loud (optional)").check()
    chat.page.screenshot(path=artifacts / "page-form.png")
    send(chat)
    chat.expect_status("Done")
    assert dict(outputs(chat)) == {
        "text": "Say it out loud",
        "speed": 1.5,
        # JavaScript has no exact number for this one.
        "seed": 2**63 - 1,
        "is_loud": True,
        "voices": ["<b>bold</b>", "b\u2028"],
    }
    assert chat.turns()[0].startswith("text: Say it out loud\nspeed: 1.5\n")


def test_untouched_optional_inputs_are_left_out(chat):
    choose(chat, "echo")
    send(chat)
    chat.expect_status("Done")
    assert outputs(chat) == [("text", "Say it out loud")]
    field(chat, "is_loud (optional)").check()
    field(chat, "is_loud (optional)").uncheck()
    send(chat)
    chat.wait_for(lambda: chat.replies.count() == 2)
    chat.wait_for(lambda: outputs(chat) == [("text", "Say it out loud"), ("is_loud", False)])


def test_mistakes_are_shown(chat):
    choose(chat, "echo")
    field(chat, "voices (optional)").fill("anna, ben")
    send(chat)
    chat.expect_status("Failed: voices must be JSON")
    field(chat, "voices (optional)").fill("[1]")
    send(chat)
    expect(chat.status).to_contain_text("Failed: each item of voices must be a string")


def test_choice_keeps_what_was_typed(chat):
    choose(chat, "echo")
    field(chat, "text").fill("typed")
    choose(chat, "say")
    expect(chat.page.get_by_label("Message", exact=True)).to_be_visible()
    expect(chat.page.locator("#fields")).to_be_hidden()
    choose(chat, "echo")
    expect(field(chat, "text")).to_have_value("typed")


def test_model_that_is_loading_gets_its_form_when_it_is_known(chat, several):
    choose(chat, "absent")
    expect(chat.page.get_by_text("absent is loading…")).to_be_visible()
    expect(chat.button("Send")).to_be_disabled()
    engine = several.start_engine("absent", MODELS=f"absent={MODELS / 'plain'}")
    expect(field(chat, "count")).to_have_value("3")
    send(chat)
    chat.expect_status("Done")
    assert chat.answer == "0 1 2"
    engine.stop()


OUT_APP = """
class InferlessPythonModel:
    def infer(self, inputs):
        return {"OUT": inputs["prompt"].upper(), **inputs}
"""
PROMPT, SIZE = (
    "'prompt': {'datatype': 'STRING', 'is_prompt': True}",
    "'size': {'datatype': 'INT32', 'required': True, 'example': [7]}",
)


@pytest.fixture
def prompted(own_stack, tmp_path):
    """Models with an input `prompt` that don't send text. `sized` requires another input."""
    for name, declared in (("out", PROMPT), ("sized", f"{PROMPT}, {SIZE}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.py").write_text(OUT_APP)
        (tmp_path / name / "input_schema.py").write_text(f"INPUT_SCHEMA = {{{declared}}}\n")
    models = {name: tmp_path / name for name in ("out", "sized")}
    return own_stack(models=models, WEB_CONCURRENCY="1").start()


def test_prompt_whose_answer_is_no_text(page, prompted):
    chat = ChatPage(page, prompted.url).open()
    chat.ask("a")
    chat.expect_status("Done")
    assert lines(chat) == ['{"OUT":"A","prompt":"a"}']
    choose(chat, "sized")
    expect(page.locator("#prompt-field")).to_be_hidden()
    page.locator("#fields [name=prompt]").fill("b")
    send(chat)
    chat.wait_for(lambda: lines(chat) == ['{"OUT":"B","prompt":"b","size":7}'])


def test_large_numbers_are_shown_as_the_server_sent_them(chat):
    choose(chat, "echo")
    field(chat, "seed (optional)").fill(str(2**63 - 1))
    send(chat)
    chat.expect_status("Done")
    assert any(f'"{2**63 - 1}"' in line for line in lines(chat))


def test_image_is_shown(page, own_stack):
    stack = own_stack(app_dir=MODELS.parent.parent / "examples" / "image", WEB_CONCURRENCY="1").start()
    chat = ChatPage(page, stack.url).open()
    send(chat)
    image = chat.replies.last.get_by_role("img")
    expect(image).to_be_visible()
    chat.wait_for(lambda: image.evaluate("(image) => [image.naturalWidth, image.complete]") == [320, True])


def test_audio_is_played(page, own_stack):
    stack = own_stack(app_dir=MODELS.parent.parent / "examples" / "audio", WEB_CONCURRENCY="1").start()
    chat = ChatPage(page, stack.url).open()
    page.locator("#fields [name=notes]").fill("CDE")
    send(chat)
    chat.button("Play").click()
    expect(page.get_by_text("6 pieces of audio")).to_be_visible()
    expect(chat.button("Play again")).to_be_visible()


def test_older_reply_about_the_models_is_ignored(page, fast):
    """Else each choice of a model that is loading would add another loop of requests."""
    # A page without scripts, whose own requests would come between.
    page.goto(f"{fast.url}/docs")
    seen = page.evaluate(
        """async () => {
            const { watchModels } = await import('/static/page/models.js');
            const [replies, timers, seen] = [[], [], []];
            const wait = window.setTimeout;
            window.fetch = () => new Promise((resolve) => { replies.push(resolve); });
            window.setTimeout = (call) => { timers.push(call); };
            const askAgain = watchModels((models) => seen.push(models), () => false);
            askAgain();
            for (const number of [1, 0]) {
                replies[number]({ ok: true, json: async () => ({ models: number }) });
                await new Promise((resolve) => { wait(resolve, 0); });
            }
            return [seen, timers.length];
        }"""
    )
    assert seen == [[1], 1]
