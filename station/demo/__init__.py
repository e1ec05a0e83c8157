"""The demo: a model of rendered buttons, its card, and how both are made."""
