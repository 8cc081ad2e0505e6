"""The chat model on vLLM: what the repository's own model folder runs.

In: inputs that were checked. Out: text, to the contract's handler. `chat_model` is the model, `answer` one answer,
`vllm_start` starts vLLM, `vllm_seam` is the only user of vLLM's internals, `vllm_plugin` runs inside vLLM's
processes, `demo_model` builds the default model. Imports `contract`; only the root's `app.py` and `input_schema.py`,
and `host` for the demo model, import it.
"""
