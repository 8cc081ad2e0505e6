"""Everstream: token streams over Server-Sent Events that never lose or repeat a token.

The folders follow a token's journey. `apis` checks a request against the model's `contract`, `web` puts it into the
`log`'s queue, `engine` claims it, runs the model (the chat model is in `llm`) and appends its output to the log, and
`web` reads the log for every viewer. `host` runs all of it on one machine. Each folder's docstring says what enters,
what leaves and who may import it; import-linter checks that. `client` is for programs that use a server elsewhere.
"""

__version__ = "0.1.0"
