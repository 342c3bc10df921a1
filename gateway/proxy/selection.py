"""Which instances of a service a target may use. Pure: the data plane selects with it, the control plane explains."""

from __future__ import annotations

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from gateway.proxy.table import Target
from registry.live.instances import Instance


class Selection:
    """A target's versions and tags, compiled.

    Raises:
        packaging.specifiers.InvalidSpecifier: its version is none.
    """

    __slots__ = ("_tags", "_text", "_version")

    def __init__(self, target: Target) -> None:
        self._tags = frozenset(target.tags)
        self._text = target.version
        # Who says >=2 and runs 3.0rc1 means that too.
        self._version = SpecifierSet(target.version, prereleases=True) if target.version else None

    def takes(self, instance: Instance) -> bool:
        return not self.why_not(instance)

    def why_not(self, instance: Instance) -> str:
        """The sentence why it is passed over; empty when it is not."""
        document = instance.document
        if missing := self._tags.difference(document.tags):
            return f"It has not the tags {', '.join(sorted(missing))}."
        if self._version is None:
            return ""
        try:
            fits = Version(document.version) in self._version
        except InvalidVersion:
            fits = False
        return "" if fits else f"It is of version {document.version or 'none'}, not {self._text}."
