"""How often a client may ask, and how much of something it may hold."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CLIENTS = 10_000  # whose buckets are kept; of more, the one that asked longest ago starts anew


class RateLimit:
    """A bucket a client that holds a minute's requests: a request takes one from it, and time fills it again.

    per_minute : requests; 0 is no limit. clock : seconds, never going backwards.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, client: str) -> int:
        """Take a token; 0, or the whole seconds until there is one."""
        if self._per_minute == 0:
            return 0
        now, rate = self._clock(), self._per_minute / 60
        tokens, counted = self._buckets.pop(client, (float(self._per_minute), now))
        tokens = min(self._per_minute, tokens + (now - counted) * rate)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0 if allowed else max(1, math.ceil((1 - tokens) / rate))


class Shares:
    """So much of something for all clients together, and so much of it for one.

    taken : by all. whole : for all. most : for one client, so that it leaves something for others.
    """

    def __init__(self, whole: int, *, most: int) -> None:
        self._whole, self._most, self.taken = whole, most, 0
        self._by_client: dict[str, int] = {}

    def take(self, client: str, amount: int) -> bool:
        """Take an amount for a client; False, and nothing taken, where it is not to be had."""
        has = self._by_client.get(client, 0)
        if self.taken + amount > self._whole or has + amount > self._most:
            return False
        self.taken += amount
        self._by_client[client] = has + amount
        return True

    def give_back(self, client: str, amount: int) -> None:
        """Give back what was taken."""
        self.taken -= amount
        left = self._by_client.get(client, 0) - amount
        if left:
            self._by_client[client] = left
        else:
            self._by_client.pop(client, None)


def client_of(host: str) -> str:
    """Whose bucket an address has: its own, or in IPv6 its /64, all of which belongs to one customer."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host
