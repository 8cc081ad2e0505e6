"""The log: what web and engine processes share, and the only place where they meet.

In: jobs (web) and entries (engine). Out: jobs to engines, entries to readers. Every entry is in the log before anyone
sees it. `web_log` (synchronous, under gevent) and `engine_log` (asyncio) are the two clients; `lua/` has every write
that must be atomic. Imported by `web`, `apis` and `engine`; imports `contract` for `PromptBound`.
"""
