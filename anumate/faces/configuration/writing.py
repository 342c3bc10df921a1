"""JSON values as YAML that reads the same by YAML 1.1 and 1.2, and the same every time."""

from __future__ import annotations

from typing import Any

import yaml

from anumate.faces.configuration import reading


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Line ends to YAML 1.1: only double quotes keep them as they are.
    odd = any(character in text for character in "\x85\u2028\u2029\ufeff")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if odd else None)


_Dumper.add_representer(str, _text)
# Texts that our reader takes for something else are quoted too: 1e3 is a text in YAML 1.1 and a number in 1.2.
for _tag, _pattern in (("int", reading.WHOLE), ("float", reading.NUMBER)):
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, list("-+0123456789."))


def write(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
