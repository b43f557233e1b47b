"""Engines: how a transformer is loaded and run fast.

Nothing here knows what a teacher or a student is: models, token lists and arrays come in, logits go out.
"""
