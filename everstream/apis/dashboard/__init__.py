"""Live figures of the whole service, as a page and as events."""
