"""What the kernels for GPUs share. Nothing here, nor any `triton.py` or `npu.py`, is imported on a plain CPU."""
