"""The journal: what this worker served, signed and chained, one line a request, never changed.

Segments are JSON lines named after their first sequence number. An entry is handed to the operating system
before its receipt leaves the worker, so it survives the death of the process; it is on disk at most 50 ms
later. At the start the chain is verified, and a last line that a crash cut short is removed.
"""
