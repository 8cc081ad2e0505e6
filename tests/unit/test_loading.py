"""What a progress bar becomes in words."""

import pytest

from everstream.host.progress_bar import MAX_CHARS, in_words


@pytest.mark.parametrize(
    ("bar", "words"),
    [
        (
            "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00,  4.20it/s]",
            "Loading safetensors checkpoint shards: 50% | 1/2",
        ),
        ("Loading shards:  50%|█████     | 1/2 [00:01<00:01]", "Loading shards: 50% 1/2"),
        ("10 %", "10 %"),
        ("a\x1b[Kb\r\n", "ab"),
        ("x" * 500, "x" * MAX_CHARS),
        ("", ""),
    ],
)
def test_bar_in_words(bar, words):
    assert in_words(bar) == words
