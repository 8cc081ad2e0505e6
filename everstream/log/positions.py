"""Positions in topics, as all APIs write them: 16 digits, so that their order as text is that of the numbers."""

POSITION = r"[0-9]{16}"
"""Matches one."""


def position_text(position: int) -> str:
    return f"{position:016d}"
