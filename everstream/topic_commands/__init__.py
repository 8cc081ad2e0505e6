"""`everstream publish`, `follow` and `tail`: topics from the shell. They use `client`, as any other program does.

`parsers` is imported by every command of `everstream`, and the rest only by those that need it: it needs httpx.
"""
