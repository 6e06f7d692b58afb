"""The network, and whatever else a socket reaches."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from typing import Any

from given import attack

CALL = b"here I am"


@attack("heard")
def call_by_tcp(facts: dict[str, Any], tell: Any) -> None:
    with socket.create_connection(("127.0.0.1", facts["tcp"]), timeout=1) as line:
        line.sendall(CALL)


@attack("heard")
def call_by_tcp_fast_open(facts: dict[str, Any], tell: Any) -> None:
    # MSG_FASTOPEN connects inside sendto(), past rules that look at connect() alone.
    with socket.socket() as line:
        line.sendto(CALL, 0x20000000, ("127.0.0.1", facts["tcp"]))
        time.sleep(0.1)


@attack("heard")
def call_by_udp(facts: dict[str, Any], tell: Any) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as line:
        line.sendto(CALL, ("127.0.0.1", facts["udp"]))


@attack("heard")
def ask_a_name_server(facts: dict[str, Any], tell: Any) -> None:
    # A name to look up carries data out even where only name servers can be reached.
    asked = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + b"\x06secret\x04test\x00" + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as line:
        line.sendto(asked, ("::ffff:127.0.0.1", facts["udp"]))


@attack("heard")
def call_by_multipath_tcp(facts: dict[str, Any], tell: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as line:
        line.settimeout(1)
        line.connect(("127.0.0.1", facts["tcp"]))
        line.sendall(CALL)


@attack("heard")
def call_by_sctp(facts: dict[str, Any], tell: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132) as line:
        line.settimeout(1)
        line.connect(("127.0.0.1", facts["sctp"]))
        line.sendall(CALL)


@attack("heard")
def call_by_a_unix_socket(facts: dict[str, Any], tell: Any) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(facts["unix"])
        line.sendall(CALL)


@attack("heard")
def call_by_an_abstract_unix_socket(facts: dict[str, Any], tell: Any) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect("\0" + facts["abstract"])
        line.sendall(CALL)


@attack("heard")
def send_a_unix_datagram_from_a_socketpair(facts: dict[str, Any], tell: Any) -> None:
    # socketpair() is often left open for asyncio, and its ends can be addressed like any other datagram socket.
    ours, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours:
        for place in (facts["datagrams"], "\0" + facts["abstract_datagrams"]):
            with contextlib.suppress(OSError):
                ours.sendto(CALL, place)
        for place in (facts["datagrams"], "\0" + facts["abstract_datagrams"]):
            with contextlib.suppress(OSError):
                ours.connect(place)
                ours.send(CALL)


@attack("claim")
def ask_the_kernel_by_netlink(facts: dict[str, Any], tell: Any) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as line:
        line.settimeout(1)
        line.sendto(struct.pack("=IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0), (0, 0))
        tell({"done": f"{len(line.recv(65536))} bytes about the interfaces"})


@attack("claim")
def open_other_families(facts: dict[str, Any], tell: Any) -> None:
    opened = []
    for family, kind, protocol in ((40, 1, 0), (38, 5, 0), (44, 3, 0), (16, 3, 15), (30, 5, 0), (31, 3, 1), (29, 3, 1)):
        with contextlib.suppress(OSError):
            socket.socket(family, kind, protocol).close()
            opened.append(family)
    if opened:
        tell({"done": f"sockets of the families {opened}"})


@attack("claim", root=True)
def open_raw_sockets(facts: dict[str, Any], tell: Any) -> None:
    for family, kind, protocol in ((2, 3, 1), (17, 3, 0)):
        with contextlib.suppress(OSError):
            socket.socket(family, kind, protocol).close()
            tell({"done": f"a raw socket of family {family}"})


@attack("heard")
def wait_to_be_called(facts: dict[str, Any], tell: Any) -> None:
    with socket.socket() as line:
        line.bind(("127.0.0.1", facts["free"]))
        line.listen()
        line.settimeout(1)
        caller, _ = line.accept()
        caller.sendall(CALL)
        os.close(caller.detach())
