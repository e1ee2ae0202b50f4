"""smartflow/api/client_address.py: what a client writes about itself counts only as far as proxies vouch for it."""

import pytest

from smartflow.api.client_address import client_address, client_network


@pytest.mark.parametrize(
    ("proxies", "forwarded_for", "address"),
    [
        (0, None, "192.0.2.9"),
        (0, "203.0.113.1", "192.0.2.9"),
        (1, "203.0.113.1", "203.0.113.1"),
        (1, "6.6.6.6, 203.0.113.1", "203.0.113.1"),
        (2, "6.6.6.6, 203.0.113.1, 10.0.0.1", "203.0.113.1"),
        (2, "203.0.113.1", "192.0.2.9"),
        (1, "6.6.6.6, nonsense", None),
        (1, "", None),
        (1, None, None),
        (1, "2001:db8::1", "2001:db8::1"),
    ],
)
def test_client_address_believes_as_many_hops_as_there_are_proxies(settings, proxies, forwarded_for, address):
    settings.TRUSTED_PROXIES = proxies
    assert client_address(peer="192.0.2.9", forwarded_for=forwarded_for) == address


@pytest.mark.parametrize(
    ("peer", "address"),
    [("::ffff:192.0.2.9", "192.0.2.9"), ("fe80::1%eth0", "fe80::1"), ("", None), (None, None), ("a.sock", None)],
)
def test_client_address_of_the_peer(settings, peer, address):
    settings.TRUSTED_PROXIES = 0
    assert client_address(peer=peer, forwarded_for="203.0.113.1") == address


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.9", "192.0.2.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        (None, "unknown"),
    ],
)
def test_client_network_is_what_one_customer_has(address, network):
    assert client_network(address) == network
