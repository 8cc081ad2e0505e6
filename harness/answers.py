"""Prompts for the real model, and the parts of an answer that must not depend on how its tokens arrived."""

from harness.sse_client import text_of

EMOJI = "🙂🎉🚀🌍👩‍👩‍👧‍👦漢字日本語"
PROMPTS = [
    {"prompt": f"Repeat after me, exactly: {EMOJI}", "max_tokens": 60},
    {"prompt": "Write a line of emoji only, twenty of them 🎉🚀", "max_tokens": 60},
    {"prompt": "Повтори: Привет, как дела?", "max_tokens": 60},
    {"prompt": "List 5 facts about the sea", "max_tokens": 60},
    {"prompt": "List 5 facts about the sea", "max_tokens": 60, "flush_ms": 200},
    {"prompt": "Count from 1 to 20", "max_tokens": 60, "stop": ["8", "never said"]},
    {"messages": [{"role": "user", "content": "Tell a story of a robot"}], "max_tokens": 47, "system": None},
]


def submit_all(stack):
    return [stack.submit(**inputs, temperature=0) for inputs in PROMPTS]


def outcome(events):
    """The parts of an answer that an engine crash must not change."""
    return text_of(events), events[-1].type, events[-1].json
