"""A Llama with 3 million random weights and a byte-level tokenizer, fast enough to expose the front end's cost.

Out: a folder that vLLM loads, in the user's cache directory, built once. At temperature 0 it generates printable ASCII,
one byte per token, and never stops by itself.
"""

import json
import os
from pathlib import Path

from chaos.tiny_model import build_once
from everstream.settings import Settings

NAME = "tiny-bytes-llama"
VERSION = 1
"""Part of the folder's name. Increase it when the build changes."""
WEIGHTS_SEED = 20
SPECIAL = ("<|begin|>", "<|end|>")
CHAT_TEMPLATE = (
    "{{ '<|begin|>' }}{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def build(settings: Settings) -> Path:
    """Build the folder if it is missing."""
    return build_once(settings.cache_path / f"{NAME}-v{VERSION}", _make)


def _make(folder: Path) -> None:
    # Imported here, as they take seconds and only the first run needs them.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate([*alphabet, *SPECIAL])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    begin, end = SPECIAL
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end)
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)

    torch.manual_seed(WEIGHTS_SEED)
    config = LlamaConfig(
        hidden_size=320,
        intermediate_size=1280,
        num_hidden_layers=2,
        num_attention_heads=5,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        vocab_size=len(vocabulary),
        bos_token_id=vocabulary[begin],
        eos_token_id=vocabulary[end],
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    printable = {token for token in alphabet if token.isascii()}
    with torch.no_grad():
        for token, n in vocabulary.items():
            if token not in printable:
                model.lm_head.weight[n] = 0
    model.generation_config.update(do_sample=False)
    model.save_pretrained(folder)
    (folder / "about.json").write_text(json.dumps({"parameters": model.num_parameters()}) + "\n")
