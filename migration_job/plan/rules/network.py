"""Addresses: inet, cidr, macaddr."""

from __future__ import annotations

import ipaddress
import re
from typing import ClassVar, Literal

from migration_job.plan.rules.base import Request, RuleBase, TargetType, expected, text_for
from migration_job.values import SourceValue

Network = Literal["inet", "cidr", "macaddr", "macaddr8"]


class NetworkRule(RuleBase):
    """Text that spells an address; only PostgreSQL's own spelling comes back as it was."""

    kind: Literal["network"] = "network"
    type: Network = "inet"

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType("inet", "opaque", "TEXT", ("192.0.2.7",)),
        TargetType("cidr", "opaque", "TEXT", ("192.0.2.0/24",)),
        TargetType("macaddr", "opaque", "TEXT", ("08:00:2b:01:02:03",), (6, 4)),
        TargetType("macaddr8", "opaque", "TEXT", ("08:00:2b:01:02:03:04:05",), (8, 4)),
    )
    doc: ClassVar[str] = "Addresses in text; PostgreSQL's own spelling comes back as it was."
    spelling: ClassVar[bool] = True
    misfit: ClassVar[str] = "not-an-address"

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        kinds: dict[str, Network] = {t.name: t.name for t in cls.types}  # type: ignore[misc]
        return cls(type=kinds.get(request.type, "inet"))

    @property
    def target_type(self) -> str:
        return self.type

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        text = text_for(value, "an address")
        try:
            if self.type == "cidr":
                network = ipaddress.ip_network(text, strict=True)
                return f"{spelled(network.network_address)}/{network.prefixlen}"
            if self.type == "inet":
                return _inet(text)
        except ValueError:
            raise expected(f"an address for {self.type}", value) from None
        return self._mac(text, value)

    def _mac(self, text: str, value: SourceValue) -> str:
        digits = re.sub(r"[:.-]", "", text).lower()
        size = 12 if self.type == "macaddr" else 16
        if re.fullmatch(rf"[0-9a-f]{{{size}}}", digits, re.ASCII) is None:
            raise expected(f"an address for {self.type}", value)
        return ":".join(digits[i : i + 2] for i in range(0, size, 2))

    def inverse(self, text: str | None) -> SourceValue:
        if text is None or self.type != "inet":
            return text
        # A cast to text writes the length that the output leaves out.
        whole = "/128" if ":" in text else "/32"
        return text.removesuffix(whole)


def _inet(text: str) -> str:
    if "/" not in text:
        return spelled(ipaddress.ip_address(text))
    interface = ipaddress.ip_interface(text)
    length = interface.network.prefixlen
    whole = length == interface.max_prefixlen
    return spelled(interface.ip) + ("" if whole else f"/{length}")


def spelled(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """The address as PostgreSQL prints it. Raises ValueError for one with a scope."""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.scope_id is not None:
        raise ValueError("PostgreSQL has no addresses with a scope")
    number = int(address)
    last = str(ipaddress.IPv4Address(number & 0xFFFF_FFFF))
    if number >> 32 == 0xFFFF:
        return f"::ffff:{last}"
    if number >> 32 == 0 and number > 1 and number >> 16:
        return f"::{last}"
    if number >> 16 == 0 and number > 1:
        return f"::{number:x}"
    return address.compressed
