"""Whether a server can be reached, decided within seconds."""

import socket
import threading
import time
from urllib.parse import urlsplit

__all__ = ["unreachable"]

_SECONDS = 3.0
_REMEMBERED = 10.0  # seconds for which a failure counts for further calls, so that several do not add up

_failures: dict[tuple[str, int], tuple[float, str]] = {}  # server -> time and reason


def unreachable(address: str) -> str:
    """Why the server of an address, or the proxy in between, accepts no connection; empty if it does.

    Takes at most three seconds, also if names are not resolved or packets are dropped. Sends no data.

    Args:
        address: an http or https address.
    """
    server = _server(address)
    failed, reason = _failures.get(server, (float("-inf"), ""))
    if time.monotonic() - failed < _REMEMBERED:
        return reason
    reasons: list[str] = []
    thread = threading.Thread(target=_connect, args=(server, reasons), daemon=True)  # resolving a name has no timeout
    thread.start()
    thread.join(_SECONDS)
    reason = reasons[0] if reasons else f"no answer within {_SECONDS:.0f} seconds"
    if reason:
        _failures[server] = (time.monotonic(), reason)
    return reason


def _connect(server: tuple[str, int], reasons: list[str]) -> None:
    try:
        socket.create_connection(server, timeout=_SECONDS).close()
        reasons.append("")
    except OSError as error:
        reasons.append(error.strerror or str(error) or type(error).__name__)
    except (OverflowError, ValueError) as error:  # a host name or a port that cannot exist
        reasons.append(str(error) or type(error).__name__)


def _server(address: str) -> tuple[str, int]:
    """Host and port to connect to: those of the address, or of the proxy for it."""
    from urllib import request  # 30 ms, which commands without network do without

    parts = urlsplit(address)
    host = parts.hostname or ""
    proxies = request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and not request.proxy_bypass(host):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
