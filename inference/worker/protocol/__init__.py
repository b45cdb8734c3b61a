"""The OpenAI wire format, in and out; free of engine and network."""
