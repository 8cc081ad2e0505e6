"""Who may call which route, and see which generation.

In: each request, before its route (`guard`). Out: `principal()`, which routes and look-ups ask. `rules` holds what each
route requires, `credentials` finds out who sends a request, `cross_site` and `hosts` refuse requests that a page of
another site makes a browser send. Used by `factory` and the routes of all APIs.
"""
