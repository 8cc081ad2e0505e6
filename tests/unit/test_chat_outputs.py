"""What a chat model's outputs hold, and whole choices joined from their pieces."""

import json

import pytest

from everstream.apis.openai.answers import Answer, chat_completion
from everstream.apis.openai.chunks import ChunkEncoder, ChunkFormat
from everstream.contract.chat_outputs import Choice, pieces
from everstream.log.entries import Entry
from everstream.log.records import Generation
from harness.chat_outputs import entries, piece
from harness.sse_client import Decoder

GENERATION = Generation("0123456789abcdef" * 2, "done", "model", 0)
OTHERS = ['{"loss":1}', '{"result":{"text":"a"}}', '{"text":null}', '{"text":7}', '{"text":"a","choices":7}', "[1]"]


@pytest.mark.parametrize("output", OTHERS)
def test_output_without_text_counts_as_text(output):
    assert pieces(output.encode()) == [Choice(text=output)]


@pytest.mark.parametrize("output", [*OTHERS, '{"text":"a"}', '{"text":""}'])
def test_first_output_is_encoded_as_any_other(output):
    encoder = ChunkEncoder(GENERATION, ChunkFormat(is_chat=False))
    first, second = (Decoder().feed(encoder.entry(Entry(n, "", output.encode())))[0].data for n in (1, 2))
    assert first == second


def test_parts_of_a_choice_are_joined():
    rows = [{"1": n} for n in range(5)]
    parts = [piece(text="a", prompt_token_ids=[7]), *(piece(prompt_logprobs=rows[at : at + 2]) for at in (0, 2, 4))]
    answer = Answer(
        entries(*parts, piece(index=1, text="b"), choices=[{"index": n, "finish_reason": "stop"} for n in (0, 1)])
    )
    made = json.loads(json.dumps(chat_completion(GENERATION, answer)))
    assert [choice["message"]["content"] for choice in made["choices"]] == ["a", "b"]
    assert (made["prompt_logprobs"], made["prompt_token_ids"]) == (rows, [7])
