"""A candidate's process as a plain subprocess has it: everything inherited, nothing held back.

`plain_child.py IN OUT`: messages are lines of JSON on two descriptors; the first line is the list of payloads, which
are run one after another in this process.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


class Channel:
    """The naive one: blocking reads of whole lines."""

    def __init__(self, coming: int, going: int) -> None:
        self.coming = os.fdopen(coming)
        self.going = going

    def send(self, value: Any) -> None:
        """Write all of it."""
        line = json.dumps(value).encode() + b"\n"
        while line:
            line = line[os.write(self.going, line) :]

    def receive(self) -> Any:
        """The next line."""
        return json.loads(self.coming.readline() or "null")


if __name__ == "__main__":
    from attack_driver import main

    channel = Channel(int(sys.argv[1]), int(sys.argv[2]))
    for payload in channel.receive():
        main(payload, channel)
        channel.send({"end": payload["name"]})
