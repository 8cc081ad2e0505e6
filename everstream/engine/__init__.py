"""The engine process: claims jobs, runs a model, appends its output. asyncio; no Flask.

In: jobs from the log's queue. Out: entries in the log. `main` is the process, `engine` holds claims and leases, each
`generation_task` runs one generation, `coalescer` joins outputs that are close in time, `appender` does group commits.
Imports `contract` and `log`; nothing imports it.
"""
