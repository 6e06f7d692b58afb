"""A driver for tests: runs the code that it is given as `code`, with the channel, then says that it is done."""

from __future__ import annotations

from typing import Any


def main(payload: Any, channel: Any) -> None:
    exec(payload["code"], {"channel": channel, "payload": payload, "__name__": "__main__"})
    channel.send("done")
