"""How a command fails: one line for the person, exit status 1."""


class Failure(Exception):
    """Its text is what the person reads."""
