"""Anthropic's Messages API, as its SDKs call it."""
