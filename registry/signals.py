"""What other apps may listen to."""

from django.dispatch import Signal

configuration_changed = Signal()
"""Sent after the commit of a change, with `revision` (the new number) and `model` (the label of the model changed)."""
