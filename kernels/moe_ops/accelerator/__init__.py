"""What the kernels for GPUs and NPUs share. On a plain CPU none of it is imported, nor any `triton.py`."""
