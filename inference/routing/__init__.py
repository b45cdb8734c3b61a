"""Fixed routing: generated tokens choose among experts that are known beforehand.

The time of a decode step follows the number of distinct experts in it; with a fixed set it is constant.
Prompts are always read with the checkpoint's own dynamic routing: reading touches every expert anyway, the
cached prompt stays exact, and what a profile would have covered of it is measured at no cost.
"""
