"""Topics: named logs of messages, for anything that is not a model's output."""
