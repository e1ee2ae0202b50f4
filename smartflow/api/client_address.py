"""Where a request comes from, as far as it can be trusted. For limits and for the list of sessions."""

from ipaddress import IPv6Address, IPv6Network, ip_address

from django.conf import settings
from rest_framework.request import Request

# What a network hands to one customer: within it a client may take another address for each request.
_CUSTOMER_BITS = 64


def client_address(*, peer: str | None, forwarded_for: str | None) -> str | None:
    """
    Return the client's address, None when there is none that is one.

    `TRUSTED_PROXIES` counts the proxies that each added their peer to X-Forwarded-For: the client's is that many from
    the end. What stands before it was written by the client.
    """
    hops = [hop.strip() for hop in (forwarded_for or "").split(",")]
    if 0 < settings.TRUSTED_PROXIES <= len(hops):
        return _find_address(hops[-settings.TRUSTED_PROXIES])
    return _find_address(peer or "")


def address_of(request: Request) -> str | None:
    """Return the address of a request of REST framework's."""
    return client_address(peer=request.META.get("REMOTE_ADDR"), forwarded_for=request.META.get("HTTP_X_FORWARDED_FOR"))


def client_network(address: str | None) -> str:
    """Return what limits count by: the address, of IPv6 the customer's network; `unknown` is one client."""
    if address is None:
        return "unknown"
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed, _CUSTOMER_BITS), strict=False))
    return address


def _find_address(text: str) -> str | None:
    try:
        parsed = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return str(mapped or parsed)
