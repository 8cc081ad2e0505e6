"""For operators and their tools: health, readiness, metrics."""
