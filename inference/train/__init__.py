"""How tokenworks-nano is made: corpus, tokenizer, pre-training, chat stage, evaluation, export.

Every stage is a function over a run folder; `python -m inference.train --help` lists them.
"""
