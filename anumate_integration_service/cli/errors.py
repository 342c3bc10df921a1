"""How a command fails: one line for the person, exit status 1 where the command says no other."""


class Failure(Exception):
    """Its text is what the person reads."""

    status = 1
