"""What people do with a conversation: follow-ups, branches, settings, the list, exports."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from harness.stack import MODELS, running_stack
from tests.browser.chat_page import ChatPage


@pytest.fixture(scope="module")
def echoing(tmp_path_factory):
    """A model with the chat model's inputs, which echoes the last message."""
    with running_stack(tmp_path_factory.mktemp("echoing"), app_dir=MODELS / "chat", WEB_CONCURRENCY="1") as stack:
        yield stack


@pytest.fixture
def chat(page, echoing):
    """Its `bodies` are those of the POSTs."""
    chat = ChatPage(page, echoing.url)
    chat.bodies = []
    page.on("request", lambda request: chat.bodies.append(request.post_data) if request.method == "POST" else None)
    page.on("dialog", lambda dialog: dialog.accept())
    return chat.open()


def say(chat, text):
    chat.ask(text)
    chat.wait_for(lambda: text in chat.turns() and chat.answer == text)
    chat.expect_status("Done")


def sent(chat):
    return json.loads(chat.bodies[-1])


def press(chat, turn, label):
    """One of the buttons of a turn, which are shown when the mouse is over it."""
    turn.hover()
    turn.get_by_label(label, exact=True).click()


def questions(chat):
    return chat.page.get_by_label("You", exact=True)


def titles(chat):
    return chat.page.locator("#sidebar li").all_inner_texts()


def open_list(chat):
    if not chat.page.locator("#sidebar").is_visible():
        chat.button("Conversations").click()


def test_follow_ups_have_the_conversation(chat):
    say(chat, "one")
    say(chat, "two")
    roles = [(message["role"], message["content"]) for message in sent(chat)["messages"]]
    assert roles == [("user", "one"), ("assistant", "one"), ("user", "two")]


def test_edit_makes_a_branch(chat):
    say(chat, "one")
    say(chat, "two")
    press(chat, questions(chat).first, "Edit and send again")
    field = chat.page.get_by_label("Edit the message")
    field.fill("other")
    field.press("Enter")
    chat.wait_for(lambda: chat.turns() == ["other", "other"])
    assert sent(chat)["messages"] == [{"role": "user", "content": "other"}]
    press(chat, questions(chat).first, "Previous version")
    assert chat.turns() == ["one", "one", "two", "two"]
    chat.page.reload()
    chat.wait_for(lambda: chat.turns() == ["one", "one", "two", "two"])
    expect(questions(chat).first.locator(".versions")).to_have_text("1 of 2")


def test_edit_can_be_cancelled(chat):
    say(chat, "one")
    press(chat, questions(chat).first, "Edit and send again")
    chat.page.get_by_label("Edit the message").press("Escape")
    assert chat.turns() == ["one", "one"]
    expect(questions(chat).first.get_by_label("Edit and send again")).to_be_focused()


def test_answer_again(chat):
    say(chat, "one")
    press(chat, chat.replies.last, "Answer again")
    expect(chat.replies.last.locator(".versions")).to_have_text("2 of 2")
    assert len([message for message in chat.stored() if message["role"] == "assistant"]) == 2


def test_delete_from_a_question_on(chat):
    say(chat, "one")
    say(chat, "two")
    press(chat, questions(chat).last, "Delete from here")
    chat.wait_for(lambda: chat.turns() == ["one", "one"])
    chat.page.reload()
    chat.wait_for(lambda: chat.turns() == ["one", "one"])
    press(chat, questions(chat).first, "Delete from here")
    expect(chat.page.locator("#welcome")).to_be_visible()


def test_settings_are_sent_and_kept(chat):
    chat.button("Settings").click()
    chat.page.get_by_label("System prompt").fill("Be terse.")
    chat.page.get_by_label("Maximum length (tokens)").fill("2")
    chat.button("Done").click()
    chat.ask("one two three")
    chat.expect_status("Done: stopped at the length limit")
    assert sent(chat)["max_tokens"] == 2
    assert sent(chat)["messages"][0] == {"role": "system", "content": "Be terse."}
    chat.page.reload()
    chat.wait_for(lambda: chat.turns() == ["one two three", "one two"])
    chat.button("Settings").click()
    expect(chat.page.get_by_label("Maximum length (tokens)")).to_have_value("2")
    chat.button("Reset").click()
    chat.button("Done").click()
    say(chat, "one two three")
    assert "max_tokens" not in sent(chat) and sent(chat)["messages"][0]["role"] == "user"


def test_bad_setting_is_named(chat):
    chat.button("Settings").click()
    chat.page.get_by_label("Stop texts (JSON)").fill("end")
    chat.button("Done").click()
    chat.ask("one")
    chat.expect_status("Failed: stop must be JSON")
    assert chat.bodies == []


def test_continue_at_the_length_limit(chat):
    chat.button("Settings").click()
    chat.page.get_by_label("Maximum length (tokens)").fill("2")
    chat.button("Done").click()
    chat.ask("one two three")
    chat.expect_status("Done: stopped at the length limit")
    chat.button("Continue").click()
    # This model echoes the last message, which is what it has said so far.
    chat.wait_for(lambda: chat.source() == "one twoone two")
    assert sent(chat)["continue_final_message"] is True


def test_list_search_and_delete(chat):
    open_list(chat)
    say(chat, "about apples")
    chat.button("New conversation").click()
    say(chat, "about pears")
    chat.wait_for(lambda: titles(chat) == ["about pears", "about apples"])
    search = chat.page.get_by_label("Search conversations")
    search.fill("APPLE")
    chat.wait_for(lambda: titles(chat) == ["about apples"])
    chat.page.locator("#sidebar li a").click()
    chat.wait_for(lambda: chat.turns() == ["about apples"] * 2)
    search.fill("nothing like it")
    expect(chat.page.get_by_text("Nothing found.")).to_be_visible()
    search.fill("")
    chat.wait_for(lambda: len(titles(chat)) == 2)
    press(chat, chat.page.locator("#sidebar li").last, "Delete “about apples”")
    chat.wait_for(lambda: titles(chat) == ["about pears"])
    assert {message["text"] for message in chat.stored()} == {"about pears"}
    expect(chat.page.locator("#welcome")).to_be_visible()


def test_back_and_forward(chat):
    say(chat, "first")
    chat.button("New conversation").click()
    say(chat, "second")
    chat.page.go_back()
    chat.wait_for(lambda: chat.turns() == ["first", "first"])


def test_exports(chat):
    open_list(chat)
    say(chat, "Why is it so?")
    with chat.page.expect_download() as markdown:
        chat.button("Export as Markdown").click()
    assert markdown.value.suggested_filename == "Why-is-it-so.md"
    text = Path(markdown.value.path()).read_text()
    assert text == "# Why is it so?\n\n## You\n\nWhy is it so?\n\n## smollm2-135m-instruct\n\nWhy is it so?\n"
    with chat.page.expect_download() as whole:
        chat.button("Export as JSON").click()
    exported = json.loads(Path(whole.value.path()).read_text())
    assert [message["text"] for message in exported["messages"]] == ["Why is it so?"] * 2


def test_copy(chat):
    chat.page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    chat.ask("one *two*")
    chat.wait_for_answer("one two")
    chat.expect_status("Done")
    press(chat, chat.replies.last, "Copy")
    assert chat.page.evaluate("copied") == "one *two*"
    press(chat, chat.replies.last, "Copy a link to this answer")
    assert chat.page.evaluate("copied") == f"{chat.url}/#g={chat.generation()}"


def test_two_tabs_with_one_conversation(chat):
    say(chat, "one")
    other = ChatPage(chat.page.context.new_page(), chat.url).open(f"/{chat.page.evaluate('location.hash')}")
    other.wait_for(lambda: other.turns() == ["one", "one"])
    say(other, "two")
    say(chat, "three")
    chat.page.reload()
    assert {message["text"] for message in chat.stored()} == {"one", "two", "three"}


def test_other_tab_shows_what_is_asked_here(chat):
    say(chat, "one")
    other = ChatPage(chat.page.context.new_page(), chat.url).open(f"/{chat.page.evaluate('location.hash')}")
    other.wait_for(lambda: other.turns() == ["one", "one"])
    say(chat, "two")
    other.wait_for(lambda: other.turns() == ["one", "one", "two", "two"])


def test_tab_that_lags_behind_overwrites_nothing(chat):
    """It has an older version of an answer that was continued elsewhere."""
    say(chat, "one")
    newest = next(message for message in chat.stored() if message["role"] == "assistant")
    chat.page.evaluate(
        """async (newest) => {
            const { openStore } = await import('/static/page/store.js');
            const store = await openStore(() => {});
            await store.putMessage({ ...newest, version: 1, prefix: 'more ' });
            await store.putMessage({ ...newest, version: 0, text: 'lost', end: { type: 'cancelled' } });
            await store.putMessage({ ...newest, version: 1, n: 0, text: 'lost' });
        }""",
        newest,
    )
    assert chat.source() == "more one"


def test_deleting_reaches_other_tabs(chat):
    say(chat, "one")
    other = ChatPage(chat.page.context.new_page(), chat.url).open(f"/{chat.page.evaluate('location.hash')}")
    other.wait_for(lambda: other.turns() == ["one", "one"])
    press(chat, questions(chat).first, "Delete from here")
    expect(other.page.locator("#welcome")).to_be_visible()
    assert chat.stored() == []


def test_database_that_the_browser_takes_away(chat):
    """As when the site's data are cleared."""
    say(chat, "one")
    gone = "new Promise((resolve) => { indexedDB.deleteDatabase('everstream').onsuccess = () => resolve(true); })"
    assert chat.page.evaluate(gone)
    open_list(chat)
    expect(chat.page.locator("#unkept")).to_be_visible()
    say(chat, "two")
    assert chat.turns() == ["one", "one", "two", "two"]


def test_choice_of_the_model_is_kept(page, several):
    chat = ChatPage(page, several.url).open()
    expect(page.get_by_label("Model")).to_have_value("say")
    page.get_by_label("Model").select_option("echo")
    page.reload()
    expect(page.get_by_label("Model")).to_have_value("echo")
    page.get_by_label("Model").select_option("say")
    chat.send(texts=["a", "b"])
    chat.wait_for_answer("ab")
