"""Operations of mixture-of-experts models, one folder each.

Every folder has a `reference.py`, plain torch that reads like the formula and defines the result, and may
have faster forms of the same function (`cpu.py`; others for other devices) that are tested against it. A
folder's `__init__.py` exports the form to call.

Shape suffixes: T tokens, D hidden, E experts, K chosen experts, I expert width, B sequences, N new tokens of
a sequence, S context positions, H heads, L latent width, R rotary width, C = L + R, P pages, Z positions in a
page.
"""
