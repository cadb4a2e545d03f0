"""The rows of the made-up database: endless generators over one random source, the tables of one
part of the application in one class."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random

from migration_job.demo import sample_text
from migration_job.values import SourceValue

Rows = Iterator[tuple[SourceValue, ...]]

POOL = 4096
"""How many different times and texts are made; rows share them, which is what makes this fast."""


class _Dice:
    """Keys, moments and chance, which all tables share."""

    def __init__(self, rows: int, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311
        self._rows = rows
        self._users = self._keys(self._share(0.004, 8))
        self._cases = self._keys(self._share(0.01, 26))
        self._images = self._keys(self._share(0.03, 27))
        self._sessions = self._keys(self._share(0.03, 21))
        self._groups = self._keys(self._share(0.0005, 4))
        self._collections = self._keys(self._share(0.001, 6))
        self._plans = self._keys(self._share(0.003, 4))
        self._drafts = self._keys(self._share(0.002, 4))
        self._boards = self._keys(self._share(0.003, 4))
        self._institutions = self._keys(3)
        self._programs = self._keys(6)
        self._discussions = self._share(0.015, 8)
        moments = self._moments()
        self._times = [m.strftime("%Y-%m-%d %H:%M:%S") for m in moments]
        self._zulu = [m.isoformat(timespec="milliseconds").replace("+00:00", "Z") for m in moments]
        self._dates = [m.strftime("%Y-%m-%d") for m in moments]
        self._annotations = [self._annotation() for _ in range(256)]

    def _keys(self, count: int) -> list[str]:
        return [self._uuid() for _ in range(count)]

    def _moments(self) -> list[datetime]:
        start = datetime(2024, 1, 1, tzinfo=UTC)
        return [
            start + timedelta(seconds=self._below(900 * 86_400), milliseconds=self._below(1000))
            for _ in range(POOL)
        ]

    def _share(self, part: float, least: int) -> int:
        return max(least, round(self._rows * part))

    def _below(self, limit: int) -> int:
        return int(self._random.random() * limit)

    def _one(self, among: list[str] | tuple[str, ...]) -> str:
        return among[int(self._random.random() * len(among))]

    def _user(self) -> str:
        return self._one(self._users)

    def _case(self) -> str:
        return self._one(self._cases)

    def _time(self) -> str:
        return self._one(self._times)

    def _iso(self) -> str:
        return self._one(self._zulu)

    def _hex(self, bits: int) -> str:
        return f"{self._random.getrandbits(bits):0{bits // 4}x}"

    def _uuid(self) -> str:
        digits = self._hex(128)
        variant = "89ab"[int(digits[16], 16) % 4]
        return (
            f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
        )

    def _annotation(self) -> str:
        points = [[self._below(512), self._below(512) / 4] for _ in range(1 + self._below(6))]
        return json.dumps(
            [{"type": "pen", "points": points, "label": "→ here"}], ensure_ascii=False
        )


class _People(_Dice):
    """Users, their institutions and programs."""

    def _institution_rows(self) -> Rows:
        for number, key in enumerate(self._institutions):
            name = f"Teaching Hospital {number + 1}"
            yield key, name, "academic", None, '{"theme":"dark","sso":false}', self._time()

    def _program_rows(self) -> Rows:
        for number, key in enumerate(self._programs):
            institution = self._institutions[number % len(self._institutions)]
            name = f"Diagnostic Radiology {number + 1}"
            accreditation = f"420{number:07d}"
            yield (
                *(key, institution, name, "diagnostic_radiology", accreditation, "{}"),
                self._time(),
            )

    def _user_rows(self) -> Rows:
        yield (
            *("system", "system", None, "", "System", "admin", self._times[0], None),
            *("attending", None, None, None),
        )
        for number, key in enumerate(self._users):
            name = f"Dr. {self._one(sample_text.FIRST_NAMES)} {self._one(sample_text.LAST_NAMES)}"
            email = None if number % 11 == 10 else f"User{number}@Example.com"
            program = number % len(self._programs) if number % 3 else None
            yield (
                *(key, f"user{number}", email, f"$2b$10${self._hex(212)[:53]}", name),
                *(self._one(sample_text.ROLES), self._time(), self._time() if number % 2 else None),
                self._one(sample_text.TRAINEE_LEVELS),
                self._institutions[program % 3] if program is not None else None,
                self._programs[program] if program is not None else None,
                1 + number % 6 if number % 4 else None,
            )

    def _member_rows(self) -> Rows:
        for number, user in enumerate(self._users):
            start = self._dates[number % POOL]
            yield (
                *(number + 1, self._programs[number % len(self._programs)], user, "resident"),
                *(1 + number % 6, start, None if number % 5 else "2026-06-30", "active"),
                self._time(),
            )

    def _signup_rows(self) -> Rows:
        for number in _count_up():
            yield (
                *(self._uuid(), self._one(sample_text.FIRST_NAMES), f"beta{number}@example.com"),
                *("resident", "Mercy", None, "1-2h", "", "learn", self._below(2), self._below(2)),
                *(self._iso(), "beta-signup", "pending", None, self._time(), self._time()),
            )

    def _interview_rows(self) -> Rows:
        for number in _count_up():
            yield (
                *(self._uuid(), self._one(sample_text.FIRST_NAMES), f"talk{number}@example.com"),
                *("fellow", "St Luke's", "Europe/Oslo", '["mon 09:00","tue 16:30"]', "any"),
                *("daily", "time", None, self._iso(), "interview-scheduling", "pending"),
                *(None, None, None, self._time(), self._time()),
            )


class _Cases(_Dice):
    """Cases with their images, tags and drafts."""

    def _case_rows(self) -> Rows:
        for number, key in enumerate(self._cases):
            diagnosis = self._one(sample_text.DIAGNOSES)
            body_part = self._one(sample_text.BODY_PARTS)
            late = number % 3 == 0
            yield (
                *(key, f"{diagnosis} - {body_part} {number}", self._one(sample_text.MODALITIES)),
                *(body_part, diagnosis, 1 + self._below(5), self._one(sample_text.HISTORIES)),
                *(self._one(sample_text.TEACHING_POINTS), self._one(sample_text.FINDINGS)),
                *(self._time(), self._time()),
                json.dumps([diagnosis, "Normal variant"], ensure_ascii=False) if late else None,
                '{"level":1,"text":"Begin with the mediastinum"}' if late else None,
                None,
                "core" if late else None,
                '["DR-PC1","DR-MK1"]' if late else None,
            )

    def _image_rows(self) -> Rows:
        for number, key in enumerate(self._images):
            annotations = self._annotations[number % 256] if number % 4 == 0 else None
            yield (
                *(key, self._case(), f"{self._hex(128)}.jpg", f"wrist {number} (1).jpg"),
                *(number % 8, annotations, self._time()),
            )

    def _series_rows(self) -> Rows:
        for number in _count_up():
            key = self._uuid()
            plain = number % 3 == 0
            uid = None if plain else f"1.2.826.0.1.3680043.8.1055.1.{self._below(10**12)}.{number}"
            yield (
                *(
                    key,
                    self._case(),
                    uid,
                    self._one(sample_text.SERIES),
                    "CT" if number % 2 else "MR",
                ),
                *(
                    30 + number % 90,
                    key,
                    None if plain else f"Demo^{self._one(sample_text.LAST_NAMES)}",
                ),
                *(None if plain else "Demo Head CT", 40.0, 80.0 if number % 5 else 0.5),
                self._time(),
            )

    def _tag_rows(self) -> Rows:
        for number in _count_up():
            # Tags are made by INSERT OR IGNORE, which uses up an id each time: hence the gaps.
            yield 1 + number * 3, f"{sample_text.TAGS[number % len(sample_text.TAGS)]}-{number}"

    def _case_tag_rows(self) -> Rows:
        yield from _pairs(self._cases, [1 + number * 3 for number in range(60)])

    def _key_finding_rows(self) -> Rows:
        for number in _count_up(1):
            yield (
                *(number, self._case(), self._one(self._images), "arrow"),
                *('{"x":0.25,"y":0.5,"r":1e-2}', f"Finding {number}", None, number % 4),
                self._time(),
            )

    def _related_rows(self) -> Rows:
        for number, (a, b) in enumerate(_pairs(self._cases, self._cases), 1):
            yield number, a, b, "similar", None, self._time()

    def _group_rows(self) -> Rows:
        for key in self._groups:
            name = f"{self._one(sample_text.BODY_PARTS)} - {self._one(sample_text.MODALITIES)}"
            yield key, name, "Auto-generated group", "anatomy", self._user(), self._time()

    def _group_case_rows(self) -> Rows:
        for number, (group, case) in enumerate(_pairs(self._groups, self._cases)):
            yield group, case, number % 9

    def _draft_rows(self) -> Rows:
        for key in self._drafts:
            content = '{"title":"Draft","findings":["a","b"],"confidence":0.80}'
            yield (
                *(key, "FINDINGS: none.\nIMPRESSION: normal.", '{"Modality":"CT"}', content),
                *('[{"source":"textbook"}]', "published", "local", "model-1", 1200),
                *(self._user(), None, None, self._case(), self._time(), self._time()),
            )

    def _reference_rows(self) -> Rows:
        for number in _count_up(1):
            draft = None if number % 2 else self._one(self._drafts)
            yield (
                *(number, draft, self._case(), "Radiology Reference", "https://example.org/ref"),
                *("article", "A", 90, "Author et al. 2024; 12(3): 45–67.", None, self._time()),
            )


class _Quizzes(_Dice):
    """What is asked and answered."""

    def _session_rows(self) -> Rows:
        for number, key in enumerate(self._sessions):
            guest = number % 7 == 6
            yield (
                *(key, "guest" if guest else self._user(), "quick", None, self._time()),
                *(None if guest else self._time(), 12, number % 13, number % 260),
            )

    def _attempt_rows(self) -> Rows:
        users, cases, sessions, times = self._users, self._cases, self._sessions, self._times
        random = self._random.random
        for number in _count_up(1):
            chance = random()
            correct = 1 if chance < 0.7 else 0
            guest = number % 20 == 7
            yield (
                number,
                cases[int(chance * 7919 * len(cases)) % len(cases)],
                correct,
                3000 + int(chance * 120_000),
                times[number * 31 % POOL],
                None if guest else users[int(random() * len(users))],
                sessions[number % len(sessions)],
                number % 5,
                number % 4,
                20 + number % 9 if correct else 0,
            )

    def _progress_rows(self) -> Rows:
        for number, (user, case) in enumerate(_pairs(self._users, self._cases)):
            factor = round(1.3 + self._random.random() * 1.5, 2)
            yield (
                *(user, case, factor, 1 + number % 30, number % 8),
                *(self._dates[number % POOL] if number % 17 else None, self._times[number % POOL]),
            )

    def _xp_rows(self) -> Rows:
        users, cases, times, sessions = self._users, self._cases, self._times, self._sessions
        random = self._random.random
        for number in _count_up(1):
            chance = random()
            yield (
                number,
                users[int(chance * len(users))],
                5 + number % 20,
                sample_text.XP_REASONS[number % 4],
                sessions[number % len(sessions)],
                cases[number % len(cases)] if number % 6 else None,
                times[number * 17 % POOL],
            )

    def _differential_rows(self) -> Rows:
        for number in _count_up(1):
            # The application stores fractions of a millisecond in this INTEGER column.
            spent: float = self._random.random() * 150_000 if number % 2 else number * 1000
            yield (
                *(number, self._user(), self._case(), '["Diagnosis A","Diagnosis B"]'),
                *(self._random.random(), '["Correct dx"]', '["Missed dx"]', "[]", spent),
                self._time(),
            )

    def _report_rows(self) -> Rows:
        for number in _count_up(1):
            feedback = '{"style":"ok","score":0.5,"n":null}'
            yield (
                *(number, self._user(), self._case(), self._one(sample_text.FINDINGS), feedback),
                *(self._random.random() * 100, "[]", "[]", self._time()),
            )

    def _board_rows(self) -> Rows:
        for number, key in enumerate(self._boards):
            transcript = '[{"role":"examiner","text":"Describe the study."}]'
            yield (
                *(key, self._user(), self._case(), "practice", "completed", transcript, None),
                *(number % 10 + 0.5, 600_000, 12, self._time(), self._time()),
            )

    def _board_note_rows(self) -> Rows:
        for number in _count_up(1):
            session = self._one(self._boards)
            yield number, session, number % 12, "praise", "Good systematic approach", self._time()

    def _challenge_rows(self) -> Rows:
        first = datetime(2024, 1, 1, tzinfo=UTC)
        for number in _count_up(1):
            day = (first + timedelta(days=number)).strftime("%Y-%m-%d")
            yield number, day, json.dumps([self._case() for _ in range(5)]), self._time()

    def _user_challenge_rows(self) -> Rows:
        first = datetime(2024, 1, 1, tzinfo=UTC)
        days = [(first + timedelta(days=n)).strftime("%Y-%m-%d") for n in range(900)]
        for number, (user, day) in enumerate(_pairs(self._users, days)):
            yield user, day, number % 6, 5, 10 * (number % 6), self._time()


class _Plans(_Dice):
    """Study plans, milestones and badges."""

    def _template_rows(self) -> Rows:
        milestones = '[{"name":"Basics","criteria":{"body_part":"Chest","difficulty":[1,2]}}]'
        for slug in sample_text.PLAN_TEMPLATES:
            yield slug, slug.replace("-", " ").title(), None, "board-prep", milestones, self._time()

    def _plan_rows(self) -> Rows:
        for number, key in enumerate(self._plans):
            template = sample_text.PLAN_TEMPLATES[number % len(sample_text.PLAN_TEMPLATES)]
            yield (
                *(key, self._user(), template, "My plan", self._dates[number % POOL], "[]"),
                *(number % 4, "active", self._time(), self._time()),
            )

    def _plan_progress_rows(self) -> Rows:
        for number, (plan, case) in enumerate(_pairs(self._plans, self._cases)):
            tried = number % 3 != 0
            yield (
                *(plan, case, number % 4, int(tried), number % 2 if tried else None),
                self._time() if tried else None,
            )

    def _milestone_rows(self) -> Rows:
        for number, slug in enumerate(sample_text.MILESTONES):
            levels = '{"1":"Identifies","2":"Applies","3":"Teaches"}'
            yield (
                *(slug, "patient_care", "Interpretation", "Interprets studies.", levels),
                *('["chest","neuro"]', '["CT","MRI"]', number),
            )

    def _case_milestone_rows(self) -> Rows:
        for number, (case, milestone) in enumerate(_pairs(self._cases, sample_text.MILESTONES)):
            yield case, milestone, 1.0 if number % 3 else 0.1

    def _level_rows(self) -> Rows:
        for number, (user, milestone) in enumerate(_pairs(self._users, sample_text.MILESTONES), 1):
            yield (
                *(number, user, milestone, 1.0 + number % 8 * 0.5, "[]", number % 5),
                *(self._time() if number % 2 else None, self._time()),
            )

    def _assessment_rows(self) -> Rows:
        for number in _count_up(1):
            yield (
                *(number, self._user(), self._one(sample_text.MILESTONES), self._user()),
                *(2.5, "quiz", str(number), None, self._time()),
            )

    def _credit_rows(self) -> Rows:
        for number in _count_up(1):
            yield (
                *(number, self._user(), "quiz_session", self._one(self._sessions), 0.25),
                *("SA-CME", f"Session {number}", self._time()),
            )

    def _cohort_rows(self) -> Rows:
        for number in _count_up(1):
            program = self._programs[number % len(self._programs)]
            day = self._dates[number % POOL]
            percentiles = '{"p10":0.42,"p50":0.71,"p90":0.93}'
            yield number, program, day, 1 + number % 6, "accuracy", percentiles, 24

    def _badge_rows(self) -> Rows:
        for slug, name, icon in sample_text.BADGES:
            yield slug, name, f"For {name}", icon, "learning", "bronze", '{"type":"count","min":1}'

    def _user_badge_rows(self) -> Rows:
        for user, badge in _pairs(self._users, [slug for slug, _, _ in sample_text.BADGES]):
            yield user, badge, self._time()

    def _user_xp_rows(self) -> Rows:
        for number, user in enumerate(self._users):
            day = self._dates[number % POOL]
            yield user, number * 37, 1 + number % 40, number % 9, number % 60, day

    def _weakness_rows(self) -> Rows:
        for user in self._users:
            data = '{"Chest":{"accuracy":0.6666666666666666}}'
            yield user, data, '["Chest"]', "[]", None, json.dumps([self._case()]), self._time()


class _Talk(_Dice):
    """Discussions, collections and devices."""

    def _discussion_rows(self) -> Rows:
        for number in _count_up(1):
            parent = 1 + self._below(number - 1) if number % 3 == 0 else None
            yield (
                *(number, self._case(), self._user(), parent, self._one(sample_text.COMMENTS)),
                *("comment", number % 5, 1 if number % 50 == 0 else 0, self._time(), self._time()),
            )

    def _upvote_rows(self) -> Rows:
        yield from _pairs(self._users, range(1, self._discussions + 1))

    def _collection_rows(self) -> Rows:
        for number, key in enumerate(self._collections):
            curated = number % 3 == 0
            made = self._iso() if number % 2 else self._time()
            whose = ("curated", "public", "system")
            if not curated:
                whose = ("custom", "private", self._user())
            yield (
                *(key, f"Collection {number}", None, None),
                *whose,
                *(None if curated else self._hex(32), 0, made, self._time()),
            )

    def _collection_case_rows(self) -> Rows:
        for number, (collection, case) in enumerate(_pairs(self._collections, self._cases)):
            yield collection, case, number % 20, self._iso()

    def _collection_progress_rows(self) -> Rows:
        pairs = _pairs(self._users, self._cases)
        for number, (user, case) in enumerate(pairs):
            done = number % 2
            collection = self._collections[number % len(self._collections)]
            yield (
                *(user, collection, case, done, self._random.random() if done else None),
                self._iso() if done else None,
            )

    def _bookmark_rows(self) -> Rows:
        for number, (user, case) in enumerate(_pairs(self._users, self._cases), 1):
            yield number, user, case, self._time()

    def _conversation_rows(self) -> Rows:
        for _ in _count_up():
            messages = json.dumps(
                [{"role": "user", "content": self._one(sample_text.COMMENTS)}], ensure_ascii=False
            )
            yield (
                *(self._uuid(), self._user(), self._case(), "chat", messages),
                *(self._time(), self._time()),
            )

    def _sync_rows(self) -> Rows:
        for number in _count_up(1):
            payload = f'{{"case":"{self._case()}","n":{number},"at":"{self._iso()}"}}'
            yield (
                *(number, self._user(), sample_text.SYNC_EVENTS[number % 4], payload),
                *(sample_text.DEVICES[number % 4], self._times[number % POOL]),
            )

    def _push_rows(self) -> Rows:
        for number in _count_up(1):
            endpoint = f"https://push.example/{self._hex(64)}"
            yield number, self._user(), endpoint, self._hex(64), "a", "UA/1.0", self._time()

    def _active_rows(self) -> Rows:
        for user in self._users:
            yield user, '{"step":2}', self._one(sample_text.DEVICES), self._time()

    def _ai_config_rows(self) -> Rows:
        yield "provider", "local"
        yield "temperature", "0.20"
        yield "enabled", "true"
        yield "api_key", None


class Maker(_People, _Cases, _Quizzes, _Plans, _Talk):
    """The rows of each table.

    Tables come in an order in which every reference is to a row that exists already.
    """

    def tables(self) -> list[tuple[str, int, Callable[[], Rows]]]:
        """Each table, how many rows it gets, and what makes them; exactly ``rows`` in all."""
        users, cases = len(self._users), len(self._cases)
        plan: list[tuple[str, int, Callable[[], Rows]]] = [
            ("institutions", len(self._institutions), self._institution_rows),
            ("programs", len(self._programs), self._program_rows),
            ("users", users + 1, self._user_rows),
            ("cases", cases, self._case_rows),
            ("images", len(self._images), self._image_rows),
            ("tags", 60, self._tag_rows),
            ("badges", len(sample_text.BADGES), self._badge_rows),
            ("study_plan_templates", len(sample_text.PLAN_TEMPLATES), self._template_rows),
            ("acgme_milestones", len(sample_text.MILESTONES), self._milestone_rows),
            ("ai_config", 4, self._ai_config_rows),
            ("case_tags", self._share(0.03, 60), self._case_tag_rows),
            ("dicom_series", self._share(0.015, 10), self._series_rows),
            ("quiz_sessions", len(self._sessions), self._session_rows),
            ("user_case_progress", self._share(0.10, 19), self._progress_rows),
            ("xp_transactions", self._share(0.18, 80), self._xp_rows),
            ("sync_events", self._share(0.04, 4), self._sync_rows),
            ("push_subscriptions", self._share(0.002, 1), self._push_rows),
            ("case_key_findings", self._share(0.01, 4), self._key_finding_rows),
            ("related_cases", self._share(0.005, 4), self._related_rows),
            ("pattern_groups", len(self._groups), self._group_rows),
            ("pattern_group_cases", self._share(0.005, 21), self._group_case_rows),
            ("case_discussions", self._discussions, self._discussion_rows),
            ("discussion_upvotes", self._share(0.015, 4), self._upvote_rows),
            ("collections", len(self._collections), self._collection_rows),
            ("collection_cases", self._share(0.01, 8), self._collection_case_rows),
            ("collection_progress", self._share(0.02, 8), self._collection_progress_rows),
            ("differential_attempts", self._share(0.015, 8), self._differential_rows),
            ("user_xp", users, self._user_xp_rows),
            ("user_badges", min(self._share(0.01, 6), users * 4), self._user_badge_rows),
            ("daily_challenges", min(self._share(0.003, 1), 900), self._challenge_rows),
            ("user_daily_challenge", self._share(0.01, 4), self._user_challenge_rows),
            ("user_study_plans", len(self._plans), self._plan_rows),
            ("study_plan_progress", self._share(0.015, 8), self._plan_progress_rows),
            ("case_drafts", len(self._drafts), self._draft_rows),
            ("case_references", self._share(0.005, 4), self._reference_rows),
            ("ai_conversations", self._share(0.005, 4), self._conversation_rows),
            ("weakness_analysis", users // 2, self._weakness_rows),
            ("report_attempts", self._share(0.005, 4), self._report_rows),
            ("oral_board_sessions", len(self._boards), self._board_rows),
            ("oral_board_annotations", self._share(0.006, 4), self._board_note_rows),
            ("program_members", users, self._member_rows),
            ("case_milestones", self._share(0.01, 8), self._case_milestone_rows),
            ("milestone_progress", min(self._share(0.005, 4), users * 4), self._level_rows),
            ("milestone_assessments", self._share(0.005, 4), self._assessment_rows),
            ("cme_credits", self._share(0.005, 4), self._credit_rows),
            ("cohort_snapshots", self._share(0.001, 4), self._cohort_rows),
            ("active_sessions", users // 4, self._active_rows),
            ("bookmarks", self._share(0.008, 4), self._bookmark_rows),
            ("beta_signups", self._share(0.001, 4), self._signup_rows),
            ("interview_requests", self._share(0.0005, 2), self._interview_rows),
        ]
        rest = self._rows - sum(count for _, count, _ in plan)
        return [*plan, ("quiz_attempts", rest, self._attempt_rows)]


def _count_up(start: int = 0) -> Iterator[int]:
    while True:
        yield start
        start += 1


def _pairs(
    left: list[str], right: Iterable[SourceValue]
) -> Iterator[tuple[SourceValue, SourceValue]]:
    """Every pair once, in an order that looks arbitrary."""
    others = list(right)
    total = len(left) * len(others)
    stride = max(1, int(total * 0.618))
    while math.gcd(stride, total) != 1:
        stride += 1
    for number in range(total):
        first, second = divmod(number * stride % total, len(others))
        yield left[first], others[second]
