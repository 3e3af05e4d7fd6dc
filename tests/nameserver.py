"""A name server of our own, and a resolver that asks it over UDP.

The answers are real DNS packets, so a test can let a name lead anywhere, and
elsewhere the next time it is asked.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Sequence
from typing import Any, Self

from dnslib import AAAA, CNAME, QTYPE, RCODE, RR, A, DNSRecord

Entries = list[tuple[Any, Any, Any, Any, tuple[Any, ...]]]


class NameServer:
    """Answers each look-up of a name with its next list of addresses, the last one for ever.

    A context manager.  ``asked`` has the names that were looked up, in order.
    """

    def __init__(self, names: dict[str, Sequence[Sequence[str]]], *, silent: bool = False) -> None:
        self._names = {name: list(answers) for name, answers in names.items()}
        self._silent = silent
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="name-server")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # An empty packet ends it: a datagram socket cannot be shut down into its reader.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as goodbye:
            goodbye.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def resolve(self, host: str, port: int, *, type: int) -> Entries:
        """What ``socket.getaddrinfo`` does: literals as the system reads them, names by asking."""
        try:
            return list(socket.getaddrinfo(host, port, type=type, flags=socket.AI_NUMERICHOST))
        except socket.gaierror:
            found = [*self._ask(host, "A"), *self._ask(host, "AAAA")]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(family, type, 6, "", (address, port)) for family, address in found]

    def _ask(self, host: str, kind: str) -> list[tuple[int, str]]:
        packet = DNSRecord.question(host, kind).send(
            *self._socket.getsockname(), timeout=2 if self._silent else 10
        )
        families = {QTYPE.A: socket.AF_INET, QTYPE.AAAA: socket.AF_INET6}
        return [
            (families[record.rtype], str(record.rdata))
            for record in DNSRecord.parse(packet).rr
            if record.rtype in families
        ]

    def _serve(self) -> None:
        while packet := self._socket.recvfrom(4096):
            data, sender = packet
            if not data:
                return
            if not self._silent:
                self._socket.sendto(self._answer(DNSRecord.parse(data)).pack(), sender)

    def _answer(self, question: DNSRecord) -> DNSRecord:
        name, kind = str(question.q.qname).rstrip("."), QTYPE[question.q.qtype]
        reply = question.reply()
        if name not in self._names:
            reply.header.rcode = RCODE.NXDOMAIN
            return reply
        answers = self._names[name]
        if kind == "A":  # asked first, so it counts the look-up
            self.asked.append(name)
        alias = f"alias.{name}"
        reply.add_answer(RR(name, QTYPE.CNAME, rdata=CNAME(alias), ttl=0))
        for address in answers[0]:
            if (":" in address) == (kind == "AAAA"):
                packed = tuple(ipaddress.ip_address(address).packed)
                rdata = AAAA(packed) if kind == "AAAA" else A(packed)
                reply.add_answer(RR(alias, getattr(QTYPE, kind), rdata=rdata, ttl=0))
        if kind == "AAAA" and len(answers) > 1:
            answers.pop(0)
        return reply
