"""What the service's HTTP API is, as an OpenAPI document and as a page.

In: the application's routes, the `ApiDescription` of each API (its `descriptions.py`), and the served models' inputs.
Out: `/openapi.json` and `/docs`. `document` makes the whole, `operation` one route, `fields` a body or a query, and
`components` the schemas of types. Called by `factory`, through `APIS`, alone; no other API imports it.
"""
