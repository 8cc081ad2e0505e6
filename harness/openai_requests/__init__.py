"""Requests to OpenAI's API as data: each parameter of `vllm serve`, with values that it accepts and that it refuses.

`accepted` and `refused` hold the tables, made of what `build` defines; `answers` sends them, and makes two servers'
answers comparable.
"""
