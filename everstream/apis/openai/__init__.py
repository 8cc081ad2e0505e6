"""OpenAI's API, as its SDKs call it."""
