"""The data plane: bare ASGI, no Django. A request's life, one module a step::

app          route by path, one log line and one x-request-id for every answer
bodies       strict parsing: a bad body never reaches a worker
admission    key, rate, concurrency and hold in one Redis round trip
routing      which worker, by the published policy (package ``routing``)
dispatch     relay to it, fail over before the first byte
streams      tokens through untouched, the receipt frame taken out; ``wholes`` for unstreamed answers
settlement   charge the truth: local journal first, then the usage stream (``settler``)
resolver     what neither answer nor receipt told is read from the worker's journal
"""
