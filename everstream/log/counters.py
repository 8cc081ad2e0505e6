"""Counters and gauges for operators, with the help texts that `/metrics` shows."""

COUNTERS = {
    "streams": "event streams started",
    "resumes": "event streams resumed after an entry that the client had seen",
    "streams_refused": "event streams refused because the worker was at its limit",
    "streams_stalled": "connections cut because the client read nothing for the send timeout",
    "parameters_ignored": "fields of requests that were ignored because nothing here has them",
    "gaps_healed": "gaps in the live channel that were filled from the log",
    "entries_refused": "entries refused because another engine had the generation or it had ended",
    "leases_taken_over": "generations taken over from an engine whose lease had expired",
    "generations_started": "generations queued",
    "generations_done": "generations that ended by themselves",
    "generations_cancelled": "generations that were stopped or abandoned",
    "generations_failed": "generations that failed",
    "tokens_generated": "tokens that models generated, as far as they say how many",
    "generations_evicted": "finished generations dropped early because the log was full",
}
"""Kept in the log, so they cover all processes for as long as the log lives."""

GAUGES = {
    "engines": "engines with the model loaded",
    "generations_running": "generations that engines are running",
    "generations_queued": "generations that no engine has claimed",
    "streams_open": "event streams that are open",
    "log_bytes": "approximate size of the log in Valkey's memory",
}
