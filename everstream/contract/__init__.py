"""The model contract (Inferless): a folder with `app.py` and `input_schema.py`, as its author wrote it.

In: a model folder; requests as text or JSON. Out: a `Model` that the engine runs, a schema that the web process checks
requests against, and the handler that a model streams through. Imports nothing else of Everstream but `errors`;
imported by every other folder. Imports nothing heavy: only a model's own `app.py` does.
"""
