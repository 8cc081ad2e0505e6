"""Collects an answer's events into its result. Pure."""

from typing import Any

from everstream.client.events import Event, Result, error_of


class Transcript:
    def __init__(self, generation: str) -> None:
        self._generation = generation
        self._texts: list[str] = []
        self._outputs: list[Any] = []
        self._is_text: bool | None = None

    def add(self, event: Event) -> None:
        if event.type != "message":
            return
        if self._is_text is None:
            # As in `GET /generations/<id>`, the first output decides.
            self._is_text = isinstance(event.data, dict) and event.data.keys() == {"text"}
        self._texts.append(event.text)
        if not self._is_text:
            self._outputs.append(event.data)

    def result(self, end: Event) -> Result:
        said = end.data if isinstance(end.data, dict) else {}
        return Result(
            id=self._generation,
            text="".join(self._texts),
            state=end.type,
            finish_reason=said.get("finish_reason"),
            usage=said.get("usage"),
            outputs=tuple(self._outputs),
            error=error_of(end),
        )
