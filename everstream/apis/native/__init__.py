"""Everstream's own API, for EventSource and curl; and the page that uses it."""
