"""Loads the application: writers and readers, half of them with new connections at each request.

``python -m example_app.load --url http://HOST:PORT --seconds 10 --journal DIR`` prints one line
when it is over and exits with 1 where a request failed. Each writer keeps a journal of its own
(:mod:`example_app.journal`); ``python -m example_app.journal`` compares them with the side that
serves afterwards. Nothing is asked twice here: to try again is the application's part.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from example_app.journal import Journal

WORDS = ("chest", "fracture", "pneumonia", "nodule", "effusion", "contrast", "axial", "follow-up")
TIMEOUT_SECONDS = 90.0
"""Longer than the application's own deadline: it is the application that gives up first."""

SHOWN_FAILURES = 5


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was answered; ``began`` by ``time.monotonic``."""

    began: float
    seconds: float
    write: bool
    side: str
    tries: int


@dataclass(slots=True)
class Result:
    """What a load has met."""

    answered: list[Request] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return len(self.answered) + len(self.failures)

    @property
    def writes(self) -> int:
        """How many writes were acknowledged."""
        return sum(r.write for r in self.answered)

    @property
    def longest(self) -> float:
        """The longest wait for an answer, in seconds."""
        return max((r.seconds for r in self.answered), default=0.0)

    def quantile(self, share: float, *, writes: bool | None = None) -> float:
        """The wait in seconds that ``share`` of the answered requests did not exceed."""
        waits = sorted(r.seconds for r in self.answered if writes in (None, r.write))
        return waits[min(len(waits) - 1, int(share * len(waits)))] if waits else 0.0

    def sides(self) -> dict[str, int]:
        """Acknowledged writes by the side that took them."""
        found: dict[str, int] = {}
        for request in self.answered:
            if request.write:
                found[request.side] = found.get(request.side, 0) + 1
        return found

    def line(self) -> str:
        """The result in one line."""
        where = ", ".join(f"{n:,} on {side}" for side, n in sorted(self.sides().items()))
        return (
            f"{len(self.failures):,} of {self.requests:,} requests failed; longest wait "
            f"{self.longest * 1000:,.0f} ms, 99% within {self.quantile(0.99) * 1000:,.0f} ms; "
            f"{self.writes:,} writes ({where or 'none'})"
        )

    def to_json(self) -> dict[str, Any]:
        """The same for programs; times in milliseconds."""
        return {
            "requests": self.requests,
            "failed": len(self.failures),
            "failures": self.failures[:SHOWN_FAILURES],
            "writes": self.writes,
            "sides": self.sides(),
            "longest_ms": round(self.longest * 1000, 1),
            "p50_ms": round(self.quantile(0.5) * 1000, 1),
            "p99_ms": round(self.quantile(0.99) * 1000, 1),
            "write_p99_ms": round(self.quantile(0.99, writes=True) * 1000, 1),
        }


class Load:
    """A load from :meth:`start` to :meth:`stop`; ``users`` are so many writers and so many readers.

    ``rate`` is the number of writes per second of all writers together; without it they write as
    fast as they are answered. The readers list, search and count, for which whole tables are gone
    through; with ``by_key`` they ask for single cases, which takes as long in a table of any size.
    The same seed gives the same requests, but for their ids.
    """

    def __init__(
        self,
        url: str,
        journal: Path,
        *,
        users: tuple[int, int] = (8, 8),
        rate: float | None = None,
        seed: int = 0,
        by_key: bool = False,
    ) -> None:
        self.run = secrets.token_hex(4)
        self._address = urlsplit(url)
        self._journal = journal
        self._writers, self._readers = users
        self._rate, self._seed, self._by_key = rate, seed, by_key
        self.timeout = TIMEOUT_SECONDS
        """Seconds for which an answer is waited for; another number is set before the start."""
        self._over = threading.Event()
        self._result = Result()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin; returns when every writer has its user, so that the load is a steady one."""
        self._journal.mkdir(parents=True, exist_ok=True)
        ready = [threading.Event() for _ in range(self._writers)]
        self._threads = [
            threading.Thread(target=self._write, args=(n, ready[n]), name=f"writer-{n}")
            for n in range(self._writers)
        ] + [
            threading.Thread(target=self._read, args=(n,), name=f"reader-{n}")
            for n in range(self._readers)
        ]
        for thread in self._threads:
            thread.start()
        for event in ready:
            event.wait(self.timeout)

    def so_far(self) -> tuple[int, int, float]:
        """So far: requests answered, requests failed, the longest wait in seconds."""
        with self._lock:
            return len(self._result.answered), len(self._result.failures), self._result.longest

    def stop(self) -> Result:
        """End: every request that was sent is waited for."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self._result

    def _client(self, number: int) -> _Client:
        return _Client(self._address.netloc, self.timeout, fresh=number % 2 == 1)

    # ------------------------------------------------------------------------------- writers

    def _write(self, number: int, ready: threading.Event) -> None:
        chance = random.Random(f"{self._seed}/writer/{number}")  # noqa: S311
        client = self._client(number)
        name = f"{self.run}-{number}"
        user = str(uuid.uuid4())
        with Journal(self._journal / f"{name}.jsonl") as journal:
            requests = _writes(name, user, chance)
            try:
                for count, (path, body, effect) in enumerate(requests):
                    journal.sent(body["request"], effect)
                    if self._send(client, "POST", path, body, write=True):
                        journal.acknowledged(body["request"])
                    ready.set()
                    if self._paced(count):
                        break
            finally:
                ready.set()
                client.close()

    def _paced(self, count: int) -> bool:
        """Wait for the next turn; True at the end."""
        if self._rate is None:
            return self._over.is_set()
        if count == 0:
            return self._over.is_set()
        return self._over.wait(self._writers / self._rate)

    # ------------------------------------------------------------------------------- readers

    def _read(self, number: int) -> None:
        chance = random.Random(f"{self._seed}/reader/{number}")  # noqa: S311
        client = self._client(number)
        # Where the writers are held to a rate, so are the readers.
        pause = 0.0 if self._rate is None else self._readers / self._rate
        try:
            cases = self._cases(client) if self._by_key else []
            while not self._over.wait(pause):
                if cases:
                    path = f"/cases/{chance.choice(cases)}"
                else:
                    word = chance.choice(WORDS)
                    path = chance.choice(("/cases", f"/search?{urlencode({'q': word})}", "/stats"))
                self._send(client, "GET", path, None, write=False)
        finally:
            client.close()

    @staticmethod
    def _cases(client: _Client) -> list[str]:
        _, answer = client.send("GET", "/cases", None)
        return [str(row[0]) for row in answer["rows"]]

    # --------------------------------------------------------------------------------- both

    def _send(
        self, client: _Client, method: str, path: str, body: dict[str, Any] | None, *, write: bool
    ) -> bool:
        began = time.monotonic()
        try:
            status, answer = client.send(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            status, answer = 0, {"error": f"{type(error).__name__}: {error}"}
        seconds = time.monotonic() - began
        good = status in (200, 201)
        with self._lock:
            if good:
                request = Request(began, seconds, write, answer["side"], answer["tries"])
                self._result.answered.append(request)
            else:
                reason = f"{method} {path}: {status} {answer.get('error', '')}"
                self._result.failures.append(f"{reason} after {seconds:.2f} s")
        return good


def _writes(
    name: str, user: str, chance: random.Random
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Path, body and expected effect of each write of one writer, for ever."""
    cases: list[str] = []
    repetitions: dict[str, int] = {}
    count = 0
    while True:
        request = f"{name}-{count}"
        count += 1
        kind = chance.choices(("case", "progress", "quiz", "title"), (4, 3, 2, 1))[0]
        if count == 1:
            body: dict[str, Any] = {"id": user, "username": f"user-{name}"}
            yield "/users", {"request": request, **body}, {"kind": "user", "id": user}
        elif kind == "case" or not cases:
            case = str(uuid.uuid4())
            title = f"{chance.choice(WORDS)} {request}"
            cases.append(case)
            yield (
                "/cases",
                {"request": request, "id": case, "title": title},
                {"kind": "case", "id": case, "title": title},
            )
        elif kind == "title":
            case, title = chance.choice(cases), f"{chance.choice(WORDS)} again {request}"
            yield (
                f"/cases/{case}",
                {"request": request, "title": title},
                {"kind": "title", "id": case, "title": title},
            )
        elif kind == "progress":
            case = chance.choice(cases)
            repetitions[case] = repetitions.get(case, 0) + 1
            yield (
                "/progress",
                {
                    "request": request,
                    "user": user,
                    "case": case,
                    "repetitions": repetitions[case],
                },
                {"kind": "progress", "user": user, "case": case, "value": repetitions[case]},
            )
        else:
            case = chance.choice(cases)
            right = chance.random() < 0.6
            yield (
                "/quiz",
                {"request": request, "case": case, "user": user, "correct": right},
                {"kind": "quiz", "case": case, "correct": right},
            )


class _Client:
    """One HTTP client; a ``fresh`` one opens a connection for each request, here and in the
    application's pool."""

    def __init__(self, address: str, timeout: float, *, fresh: bool) -> None:
        self._address, self._timeout, self._fresh = address, timeout, fresh
        self._connection: http.client.HTTPConnection | None = None

    def send(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._address, timeout=self._timeout)
        headers = {"X-Fresh-Connection": "1", "Connection": "close"} if self._fresh else {}
        try:
            self._connection.request(
                method, path, None if body is None else json.dumps(body), headers
            )
            response = self._connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        except BaseException:
            self.close()
            raise
        if self._fresh:
            self.close()
        return response.status, answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def main() -> int:
    parser = argparse.ArgumentParser(prog="example_app.load", description="load the application")
    parser.add_argument("--url", required=True)
    parser.add_argument("--journal", type=Path, required=True, help="a directory")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--rate", type=float, help="writes per second of all writers together")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    load = Load(
        options.url,
        options.journal,
        users=(options.writers, options.readers),
        rate=options.rate,
        seed=options.seed,
    )
    load.start()
    threading.Event().wait(options.seconds)
    result = load.stop()
    print(json.dumps(result.to_json()) if options.json else f"seed {options.seed}: {result.line()}")
    for failure in result.failures[:SHOWN_FAILURES]:
        sys.stderr.write(f"failed: {failure}\n")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
