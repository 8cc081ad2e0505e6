"""OpenAI's own client, for tests of its API."""

import openai


def openai_client(stack):
    """A context manager. It never retries, so that a test sees every error."""
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0)
