"""`anumate-integration start`: the whole platform as one command, on one machine.

`start.py` tells the story; `programs.py` says what runs, `process.py` keeps it running, `preflight.py` says early what
would not work, `console.py` is what the terminal shows.
"""
