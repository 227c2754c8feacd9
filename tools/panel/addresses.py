"""Where the page can be opened from: this computer's own addresses, and a QR code of one for a phone's camera."""

from __future__ import annotations

import contextlib
import fcntl
import io
import ipaddress
import socket
import struct
from pathlib import Path

MOST = 4
SIOCGIFADDR = 0x8915  # of Linux: an interface's IPv4 address
ELSEWHERE = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}  # for documentation: nothing is sent there


def reachable(host: str) -> list[str]:
    """As they are written in a URL: `host`, or of all interfaces each one's address, the likeliest first."""
    if host not in ELSEWHERE:
        return [_bracketed(host)]
    found = _likeliest(host) + (_ipv6() if host == "::" else _ipv4())
    return [_bracketed(each) for each in dict.fromkeys(found)][:MOST] or [socket.gethostname()]


def qr_code(url: str) -> str:
    """For a terminal; empty without the package segno."""
    try:
        import segno
    except ImportError:
        return ""
    drawn = io.StringIO()
    segno.make_qr(url, error="l").terminal(drawn, compact=True)
    return drawn.getvalue()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _likeliest(host: str) -> list[str]:
    """The address from which this computer reaches others."""
    family = socket.AF_INET6 if host == "::" else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asked:
        asked.connect((ELSEWHERE[host], 9))
        return [str(asked.getsockname()[0])]
    return []


def _ipv4() -> list[str]:
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has none
                answer = fcntl.ioctl(asked.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found.append(socket.inet_ntoa(answer[20:24]))
    return [each for each in found if not ipaddress.ip_address(each).is_loopback]


def _ipv6() -> list[str]:
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            address = ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))
            if not (address.is_loopback or address.is_link_local):
                found.append(str(address))
    return found
