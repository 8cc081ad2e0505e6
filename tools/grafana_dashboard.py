"""Writes deploy/grafana/everstream.json: `python -m tools.grafana_dashboard`. A test compares the two."""

import json
from pathlib import Path

PATH = Path(__file__).parent.parent / "deploy" / "grafana" / "everstream.json"
WIDTH, HEIGHT, COLUMNS = 8, 8, 3


def rate(name, *by):
    return f"sum by ({', '.join(by)}) (rate(everstream_{name}[$__rate_interval]))"


def quantiles(name):
    return [
        (f"histogram_quantile({q}, {rate(f'{name}_bucket', 'le', 'model')})", f"{{{{model}}}} p{round(q * 100)}")
        for q in (0.5, 0.95, 0.99)
    ]


WORKER = "{{worker}}"
PREFIX_HITS = f"{rate('prefix_cache_hits_total', 'model')} / {rate('prefix_cache_queries_total', 'model')}"
TROUBLE = (
    *("leases_taken_over", "gaps_healed", "streams_refused", "streams_stalled", "generations_evicted"),
    "entries_refused",
)
PANELS = [
    (
        "Generations",
        "short",
        [("everstream_generations_running", "running"), ("everstream_generations_queued", "queued")],
    ),
    (
        "Tokens per second",
        "short",
        [(rate("answer_tokens_total", "model"), "{{model}}"), (rate("prompt_tokens_total"), "prompts")],
    ),
    ("Time to the first token", "s", quantiles("time_to_first_token_seconds")),
    ("Time between tokens", "s", quantiles("inter_token_latency_seconds")),
    ("Wait in the queue", "s", [*quantiles("queue_wait_seconds"), ("everstream_oldest_queued_seconds", "the oldest")]),
    ("Whole generations", "s", quantiles("generation_seconds")),
    (
        "Key/value cache",
        "percentunit",
        [("everstream_engine_cache_usage", "{{engine}}"), (PREFIX_HITS, "prompts found")],
    ),
    ("Ends of generations", "short", [(rate("generations_ended_total", "state", "code"), "{{state}} {{code}}")]),
    ("Requests", "reqps", [(rate("http_requests_total", "route", "status"), "{{route}} {{status}}")]),
    ("Tokens per key", "short", [(rate("answer_tokens_total", "key"), "{{key}}")]),
    ("Streams", "short", [("everstream_worker_streams", WORKER), (rate("resumes_total"), "resumed per second")]),
    ("Connections", "short", [("everstream_worker_connections", WORKER)]),
    ("Event loop's lag", "s", [("everstream_worker_event_loop_lag_seconds", WORKER)]),
    ("Memory of web processes", "bytes", [("everstream_worker_memory_bytes", WORKER)]),
    ("Processor time", "percentunit", [("rate(everstream_worker_cpu_seconds[$__rate_interval])", WORKER)]),
    ("Commits to the log", "s", quantiles("log_append_seconds")),
    (
        "Size of the log",
        "bytes",
        [
            ("everstream_log_bytes", "log"),
            ("everstream_valkey_memory_bytes", "Valkey's memory"),
            ("everstream_valkey_aof_bytes", "its file"),
        ],
    ),
    (
        "Engines",
        "short",
        [
            ("everstream_engine_state == 1", "{{engine}} {{state}}"),
            ("everstream_engine_running", "{{engine}} runs"),
        ],
    ),
    ("Trouble", "short", [(rate(f"{name}_total"), name) for name in TROUBLE]),
]


def expressions():
    """All queries, with Grafana's interval filled in."""
    return [query.replace("$__rate_interval", "1m") for _, _, queries in PANELS for query, _ in queries]


def dashboard():
    source = {"type": "prometheus", "uid": "${source}"}
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": title,
            "datasource": source,
            "gridPos": {"x": number % COLUMNS * WIDTH, "y": number // COLUMNS * HEIGHT, "w": WIDTH, "h": HEIGHT},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + at), "datasource": source, "expr": query, "legendFormat": legend}
                for at, (query, legend) in enumerate(queries)
            ],
        }
        for number, (title, unit, queries) in enumerate(PANELS)
    ]
    variable = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "title": "Everstream",
        "uid": "everstream",
        "schemaVersion": 38,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [variable]},
        "panels": panels,
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(dashboard(), indent=2) + "\n")
