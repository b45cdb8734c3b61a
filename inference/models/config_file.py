"""Reading a checkpoint's `config.json` as a JSON object."""

from __future__ import annotations

import json
from pathlib import Path

from inference.models.fields import ConfigError


def read_config(path: str | Path) -> tuple[dict[str, object], str]:
    """The object in `config.json` of the folder `path`, and the file's name for messages."""
    file = Path(path) / "config.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file; expected a Hugging Face checkpoint folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not readable as JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: expected a JSON object, found {type(data).__name__}")
    return data, str(file)
