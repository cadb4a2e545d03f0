"""A load on the example application, with a journal of its own.

What the application acknowledged is written down here, by the client, and compared at the end with
what the serving database holds: the migration job's word is not taken for it. Every second client
has the application open a new database connection for each request.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

TIMEOUT_SECONDS = 60.0
OWN_CASES = 5
"""Cases that each writer makes and later changes; nobody else touches them, so the journal knows
what they must say in the end."""

Ask: TypeAlias = Callable[[str, list[str]], list[tuple[Any, ...]]]
"""Runs a query with one list of texts as its parameter, on the serving database."""


@dataclass(slots=True)
class Journal:
    """What one writer was told is committed."""

    user: str
    attempts: list[str] = field(default_factory=list)
    """Request ids of quiz attempts, which the application stores as their session."""
    titles: dict[str, str] = field(default_factory=dict)
    """Case -> the last acknowledged title."""
    repetitions: dict[str, int] = field(default_factory=dict)
    """Case -> the user's last acknowledged count of repetitions."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The load so far. Times are in seconds, as the client measured them."""

    requests: int
    writes: int
    failed: int
    longest: float
    first_failure: str


class Load:
    """``writers`` and ``readers`` clients, each at most ``pace`` requests per second, in threads of
    this process. :meth:`start` returns once every writer has its user and cases."""

    def __init__(
        self, port: int, *, writers: int = 4, readers: int = 4, pace: float = 50.0, seed: int = 1
    ) -> None:
        self._port = port
        self._pause = 1.0 / pace
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._requests = self._writes = self._failed = 0
        self._longest = 0.0
        self._first_failure = ""
        self._random = Random(seed)  # noqa: S311
        self.journals = [Journal(self._uuid()) for _ in range(writers)]
        seeds = [self._random.getrandbits(32) for _ in range(writers + readers)]
        self._threads = [
            threading.Thread(target=self._write_on, args=(journal, seed, number % 2 == 1))
            for number, (journal, seed) in enumerate(zip(self.journals, seeds, strict=False))
        ] + [
            threading.Thread(target=self._read_on, args=(seed, number % 2 == 1))
            for number, seed in enumerate(seeds[writers:])
        ]

    def start(self) -> None:
        """Begin. Raises ConnectionError where the application does not answer at all."""
        for journal in self.journals:
            client = _Client(self._port, fresh=False)
            self._prepare(client, journal)
            client.close()
        for thread in self._threads:
            thread.start()

    def stop(self) -> Tally:
        """End: every request that is under way gets its answer first."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.tally()

    def tally(self) -> Tally:
        """The counts at this moment."""
        with self._lock:
            return Tally(
                self._requests, self._writes, self._failed, self._longest, self._first_failure
            )

    def missing(self, ask: Ask) -> list[str]:
        """What was acknowledged and is not there exactly once, or not as it was last written; a
        sentence each, none where all is well."""
        wrong = list(_repeated(ask, [a for j in self.journals for a in j.attempts]))
        for journal in self.journals:
            wrong += _differing(
                "case",
                journal.titles,
                dict(
                    ask(
                        "SELECT id::text, title FROM cases WHERE id::text = ANY(%s)",
                        list(journal.titles),
                    )
                ),
            )
            wrong += _differing(
                f"progress of {journal.user} in case",
                journal.repetitions,
                dict(
                    ask(
                        "SELECT case_id::text, repetitions FROM user_case_progress "
                        "WHERE user_id::text = ANY(%s)",
                        [journal.user],
                    )
                ),
            )
        return wrong

    # ----------------------------------------------------------------------------- clients

    def _prepare(self, client: _Client, journal: Journal) -> None:
        body = {"request": self._uuid(), "id": journal.user, "username": f"load-{journal.user}"}
        _require(client.send("POST", "/users", body), "a user")
        for number in range(OWN_CASES):
            case, title = self._uuid(), f"Load case {number}"
            body = {"request": self._uuid(), "id": case, "title": title}
            _require(client.send("POST", "/cases", body), "a case")
            journal.titles[case] = title

    def _write_on(self, journal: Journal, seed: int, fresh: bool) -> None:
        random = Random(seed)  # noqa: S311
        client = _Client(self._port, fresh=fresh)
        number = 0
        while not self._stop.wait(self._pause):
            number += 1
            case = random.choice(list(journal.titles))
            request = str(uuid.UUID(int=random.getrandbits(128), version=4))
            match random.randrange(4):
                case 0:
                    title = f"Retitled {number}"
                    body = {"request": request, "title": title}
                    if self._sent(client, "POST", f"/cases/{case}", body):
                        journal.titles[case] = title
                case 1:
                    body = {"request": request, "user": journal.user, "case": case}
                    if self._sent(client, "POST", "/progress", {**body, "repetitions": number}):
                        journal.repetitions[case] = number
                case _:
                    body = {"request": request, "case": case, "user": journal.user}
                    if self._sent(client, "POST", "/quiz", {**body, "correct": number % 2}):
                        journal.attempts.append(request)
        client.close()

    def _read_on(self, seed: int, fresh: bool) -> None:
        random = Random(seed)  # noqa: S311
        client = _Client(self._port, fresh=fresh)
        users = [journal.user for journal in self.journals]
        pages = ["/cases", "/search?q=fracture", *(f"/progress?user={user}" for user in users)]
        while not self._stop.wait(self._pause):
            self._sent(client, "GET", random.choice(pages), None)
        client.close()

    def _sent(
        self, client: _Client, method: str, path: str, body: Mapping[str, Any] | None
    ) -> bool:
        began = time.monotonic()
        status, words = client.send(method, path, body)
        took = time.monotonic() - began
        well = status in (200, 201)
        with self._lock:
            self._requests += 1
            self._writes += int(well and method == "POST")
            self._longest = max(self._longest, took)
            if not well:
                self._failed += 1
                self._first_failure = self._first_failure or f"{method} {path}: {status} {words}"
        return well

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))


class _Client:
    """One keep-alive HTTP connection; a request is sent once, never silently again."""

    def __init__(self, port: int, *, fresh: bool) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
        self._headers = {"X-Fresh-Connection": "1"} if fresh else {}

    def send(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, str]:
        """Status and body; 0 and the error's words where no answer came."""
        try:
            self._connection.request(
                method, path, None if body is None else json.dumps(body), self._headers
            )
            answer = self._connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return 0, f"{type(error).__name__}: {error}"

    def close(self) -> None:
        self._connection.close()


def _require(answer: tuple[int, str], what: str) -> None:
    if answer[0] != 201:
        raise ConnectionError(f"the application did not make {what}: {answer[0]} {answer[1]}")


def _repeated(ask: Ask, attempts: list[str]) -> Iterable[str]:
    found: dict[str, int] = dict(
        ask(
            "SELECT session_id::text, count(*) FROM quiz_attempts WHERE session_id::text = ANY(%s) "
            "GROUP BY session_id",
            attempts,
        )
    )
    for attempt in attempts:
        if found.get(attempt, 0) != 1:
            yield f"quiz attempt {attempt} is there {found.get(attempt, 0)} times"


def _differing(what: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterable[str]:
    for key, value in wanted.items():
        if found.get(key) != value:
            yield f"{what} {key}: acknowledged {value!r}, found {found.get(key)!r}"
