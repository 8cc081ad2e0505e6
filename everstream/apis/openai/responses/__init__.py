"""OpenAI's Responses API. A request becomes a chat request (`requests`), which an engine runs as any other. What the
engine logs becomes the events of a response (`events`). The web process parses nothing that the model says."""
