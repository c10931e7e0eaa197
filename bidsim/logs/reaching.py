"""Which store an address is in, and how it is reached; each store's library is imported by its own file."""

from __future__ import annotations

from bidsim.logs.addresses import Address, Scheme
from bidsim.logs.stores import Store


def open_store(address: Address) -> Store:
    """The store that an address is in. Raises LogError where its library is missing."""
    scheme: Scheme = address.scheme
    if scheme == "s3":
        from bidsim.logs.stores_s3 import S3Store

        return S3Store(address.place)
    from bidsim.logs.stores_arrow import ArrowStore

    return ArrowStore(scheme, address.place)
