"""LoRA adapters: files as PEFT writes them, loaded and dropped while serving, many in one batch."""
