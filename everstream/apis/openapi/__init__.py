"""What the service's HTTP API is, as an OpenAPI document and as a page."""
