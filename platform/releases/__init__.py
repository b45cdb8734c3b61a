"""Signed-off model versions: manifest, digest, and challenges a worker answers from the bytes it serves."""
