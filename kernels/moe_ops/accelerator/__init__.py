"""What the kernels for GPUs and NPUs share. On a plain CPU no kernel of theirs is imported."""
