"""The worker: serves one release over HTTP, signs what it served, and reports to the utility.

A request's life, one module a step::

    server.app         route, size limit, bearer
    protocol.parse     OpenAI body -> Call
    prompts            Call -> GenerationRequest, by the engine's tokenizer
    server.generation  engine events -> frames; cancel when the client is gone
    journal            one signed, hash-chained line per request
    protocol.frames    chunks, usage, the receipt frame, [DONE]
"""
