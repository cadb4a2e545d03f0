"""From a catalogue and its values to a plan.

The order: what the values are; a rule for each column; one type for both ends of every foreign
key; which rows go to quarantine, with all that depend on them; then the constraints, indexes,
views and sequences that the target can have.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TypeVar

import apsw

from migration_job.plan import naming
from migration_job.plan.choose import Choice
from migration_job.plan.collisions import find_collisions
from migration_job.plan.conflicts import report_conflicts
from migration_job.plan.decide import Decider, Decision, Wish, count_rows
from migration_job.plan.defaults import truth_word
from migration_job.plan.distinct import named_in_source, with_distinct_constraints
from migration_job.plan.facts import MAX_SINGLED_OUT, ColumnFacts, Rows
from migration_job.plan.findings import Findings, settle_column, settle_table
from migration_job.plan.model import (
    ColumnPlan,
    ForeignKeyPlan,
    Plan,
    Reason,
    SequencePlan,
    TablePlan,
    UniquePlan,
)
from migration_job.plan.objects import ColumnView, Objects, TableView
from migration_job.plan.observe import Observer, Span
from migration_job.plan.policy import DefaultAction, Policy
from migration_job.plan.profile import Profile, check_columns, in_sqlite, summary, unique_name
from migration_job.plan.quarantine import Quarantine, Spelling
from migration_job.plan.relations import Place, Relation, Relations, common
from migration_job.plan.rowsize import (
    MAX_ROW_BYTES,
    MAX_TEXT_BYTES,
    find_too_large,
    find_too_long,
)
from migration_job.plan.rules import (
    DecimalTextRule,
    IntegerRule,
    MapRule,
    Rule,
    TextRule,
    WidenedTextRule,
)
from migration_job.plan.virtual import with_virtual
from migration_job.plan.wayback import refusals
from migration_job.quoting import sqlite_name
from migration_job.signals import undisturbed
from migration_job.stores.sqlite.model import Catalogue, SourceColumn, SourceTable
from migration_job.stores.sqlite.reader import Row
from migration_job.values import fold, same

MAX_COLUMNS = 1600
"""PostgreSQL's limit of a table."""

PARTS_PER_READER = 3
"""A large table is looked at in so many parts for each connection, since some take longer."""


def make_plan(  # noqa: PLR0913 - options of a plan, named
    connection: apsw.Connection,
    catalogue: Catalogue,
    *,
    profile: Profile | None = None,
    policy: Policy | None = None,
    zone: str = "UTC",
    others: Sequence[apsw.Connection] = (),
    observed: Callable[[], object] | None = None,
) -> Plan:
    """The plan for the connection's present state, every value tried. ``others`` are connections to
    the very same state, which let more tables be looked at at once. ``observed`` is called once
    the facts of every table are known: from then on the planning needs little of the processor.

    ``Plan.blocked`` is empty where the run may go on. Raises InputError where policy or profile
    name what is not there.
    """
    chosen = policy or Policy()
    catalogue = with_virtual(catalogue, chosen)
    chosen.check(catalogue)
    return _Planner(connection, catalogue, profile, chosen, zone, others).plan(observed)


_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class _Reader:
    """What looks at the source through one connection."""

    observer: Observer
    quarantine: Quarantine


_Facts = dict[str, ColumnFacts]
"""A table's columns with what is known of them."""


class _Planner:
    def __init__(
        self,
        connection: apsw.Connection,
        catalogue: Catalogue,
        profile: Profile | None,
        policy: Policy,
        zone: str,
        others: Sequence[apsw.Connection],
    ) -> None:
        self._connection = connection
        self._catalogue = catalogue
        self._profile = profile or Profile(name="none")
        self._policy = policy
        default: DefaultAction = policy.default or self._profile.default
        self._findings = Findings(policy, default)
        self._readers = [
            _Reader(Observer(one, catalogue), Quarantine(one, catalogue))
            for one in (connection, *others)
        ]
        self._observer = self._readers[0].observer
        self._decider = Decider(self._observer, policy, self._findings, zone)
        self._spans: dict[str, list[Span]] = {}
        """What of each table is looked at in one go: the whole, or each of some parts."""
        self._facts: dict[str, _Facts] = {}
        self._decisions: dict[tuple[str, str], Decision] = {}
        self._targets: dict[str, str] = {}
        self._columns: dict[tuple[str, str], str] = {}
        self._relations = Relations(catalogue, self._profile.foreign_keys())
        self._broken: dict[str, set[str]] = {}
        self._collided: set[tuple[str, tuple[str, ...]]] = set()
        """Tables and columns whose key the target cannot have."""
        self._impossible: set[tuple[str, tuple[str, ...]]] = set()
        """Those that no index of PostgreSQL's takes as they are."""
        self._quarantine = self._readers[0].quarantine

    def plan(self, observed: Callable[[], object] | None) -> Plan:
        self._name_everything()
        self._observe()
        if observed is not None:
            observed()
        wishes = self._relations.spread_wishes(self._wishes())
        self._decide_all(wishes)
        dropped = self._agree_on_types()
        self._settle_maps()
        for table in self._catalogue.tables:
            self._report(table)
            report_conflicts(table, self._findings)
        self._set_aside()
        self._find_too_large()
        self._find_collisions()
        self._try_checks()
        self._try_wished_constraints()
        orphaned = self._orphans(dropped)
        self._quarantine.close_over(self._relations)
        self._report_quarantine()
        objects = Objects(
            self._views(),
            self._findings,
            self._catalogue,
            self._observer,
            self._quarantine,
            self._relations,
        )
        self._impossible = objects.impossible_keys()
        tables = [
            self._table(table, objects, dropped, orphaned) for table in self._catalogue.tables
        ]
        tables = [
            with_distinct_constraints(plan, named_in_source(table), self._findings)
            for table, plan in zip(self._catalogue.tables, tables, strict=True)
        ]
        tables += self._profile.tables_alone(self._catalogue)
        views = objects.views()
        objects.report_others(self._connection)
        scripts = self._enabled()
        return Plan(
            profile=self._profile.name,
            encoding=self._catalogue.encoding,
            tables=tuple(tables),
            sequences=tuple(self._sequences(tables)),
            views=views,
            extensions=self._profile.extensions,
            after_load=(*self._profile.after_load, *scripts),
            findings=self._findings.all,
        )

    def _enabled(self) -> tuple[str, ...]:
        """The SQL of the features that the policy enables; each is a note of what it does."""
        scripts = self._profile.enabled(self._policy.enable)
        for name, script in zip(self._policy.enable, scripts, strict=True):
            self._findings.add("feature-enabled", "note", f"{name}: {summary(script)}", item=name)
        return scripts

    # --------------------------------------------------------------------------------- names

    def _name_everything(self) -> None:
        taken: set[str] = set()
        for table in self._catalogue.tables:
            target = naming.relation_name(table.name, taken)
            self._note_name(table.name, target, "table", table.name, None)
            taken.add(target)
            self._targets[table.name] = target
            columns: set[str] = set()
            for column in table.columns:
                own = naming.column_name(column.name, columns)
                self._note_name(column.name, own, "column", table.name, column.name)
                columns.add(own)
                self._columns[table.name, column.name] = own
            if len(table.columns) > MAX_COLUMNS:
                self._findings.add(
                    "too-many-columns",
                    "error",
                    f"{len(table.columns):,} columns; a PostgreSQL table has {MAX_COLUMNS:,} at "
                    "most. Split the table on the source first: no policy settles this",
                    table=table.name,
                    settle="",
                )

    def _note_name(self, name: str, target: str, what: str, table: str, column: str | None) -> None:
        if target == name:
            return
        if target == naming.cut(name):
            self._findings.add(
                "name-cut",
                "warning",
                f"the {what}'s name has {len(name.encode())} bytes; PostgreSQL keeps the first "
                f"{naming.MAX_BYTES}, in queries as well, so that the long name still finds it",
                table=table,
                column=column,
            )
        else:
            self._findings.add(
                "renamed",
                "by-action",
                f"PostgreSQL cannot have a {what} called {name!r} here: called {target!r}",
                table=table,
                column=column,
            )

    # -------------------------------------------------------------------------------- values

    def _observe(self) -> None:
        most = len(self._readers) * PARTS_PER_READER if len(self._readers) > 1 else 1

        def begin(reader: _Reader, table: SourceTable) -> tuple[list[Span], _Facts]:
            sample, ends = reader.observer.sample(table)
            return reader.observer.spans(table, ends, most), sample

        def look(reader: _Reader, table: SourceTable, span: Span, sample: _Facts) -> _Facts:
            facts = reader.observer.facts(table, sample, span)
            reader.observer.look_at_text(table, facts, span)
            return facts

        tables = self._catalogue.tables
        for table, (spans, _, found) in zip(tables, self._by_part(begin, look), strict=True):
            self._spans[table.name] = spans
            whole, *others = found
            for part in others:
                for column, own in whole.items():
                    own.extend(part[column])
            alias = table.rowid_alias
            if alias is not None and table.sequence is not None:
                whole[alias].high = max(whole[alias].high or 0, table.sequence)
            self._facts[table.name] = whole

    def _by_part(
        self,
        begin: Callable[[_Reader, SourceTable], tuple[list[Span], _Item]],
        work: Callable[[_Reader, SourceTable, Span, _Item], _Found],
    ) -> list[tuple[list[Span], _Item, list[_Found]]]:
        """``begin`` on every table, and ``work`` on each of the parts that it names; for each table
        the parts, what ``begin`` gave beside them, and what ``work`` found in each."""

        def first(reader: _Reader, table: SourceTable) -> tuple[list[Span], _Item, list[_Found]]:
            spans, item = begin(reader, table)
            # A table in one part at once, while SQLite still has its pages.
            done = [work(reader, table, spans[0], item)] if len(spans) == 1 else []
            return spans, item, done

        tables = self._catalogue.tables
        begun = self._at_once(first, tables)
        parts = [
            (table, span, item)
            for table, (spans, item, done) in zip(tables, begun, strict=True)
            if not done
            for span in spans
        ]
        found = iter(self._at_once(lambda reader, part: work(reader, *part), parts))
        return [
            (spans, item, done or list(islice(found, len(spans)))) for spans, item, done in begun
        ]

    def _at_once(
        self, work: Callable[[_Reader, _Item], _Found], items: Sequence[_Item]
    ) -> list[_Found]:
        """``work`` on every item, in a thread for each connection; the results in the items'
        order. The first error ends it and is raised."""
        found: dict[int, _Found] = {}
        numbers = iter(range(len(items)))
        failed = threading.Event()

        def some(reader: _Reader) -> None:
            try:
                for number in numbers:
                    if failed.is_set():
                        return
                    found[number] = work(reader, items[number])
            except BaseException:
                failed.set()
                raise

        # One future for each thread, not for each item, whose end would wake this thread.
        with ThreadPoolExecutor(len(self._readers)) as pool:
            with undisturbed():
                futures = [pool.submit(some, reader) for reader in self._readers]
            for future in futures:
                future.result()
        return [found[number] for number in range(len(items))]

    def _wishes(self) -> dict[tuple[str, str], Wish]:
        found: dict[tuple[str, str], Wish] = {}
        for table in self._catalogue.tables:
            for column in table.columns:
                wish = self._profile.wish(table.name, column.name)
                if wish is not None:
                    found[table.name, column.name] = wish
        return found

    def _decide_all(self, wishes: dict[tuple[str, str], Wish]) -> None:
        def begin(_: _Reader, table: SourceTable) -> tuple[list[Span], dict[str, Choice]]:
            return self._spans[table.name], self._propose(table, wishes)

        def trial(
            reader: _Reader, table: SourceTable, span: Span, choices: dict[str, Choice]
        ) -> dict[str, int]:
            rules = {name: choice.rule for name, choice in choices.items()}
            return reader.observer.trial(table, rules, self._facts[table.name], span)

        tables = self._catalogue.tables
        for table, (_, choices, found) in zip(tables, self._by_part(begin, trial), strict=True):
            slow: Counter[str] = Counter()
            for counts in found:
                slow.update(counts)
            self._decide(table, choices, slow, wishes)

    def _propose(
        self, table: SourceTable, wishes: dict[tuple[str, str], Wish]
    ) -> dict[str, Choice]:
        """The rule and type that each readable column would have if all its values met it."""
        choices: dict[str, Choice] = {}
        for column in table.columns:
            own = self._facts[table.name][column.name]
            if own.unreadable:
                continue
            wish = wishes.get((table.name, column.name))
            choice = self._decider.propose(table, column, own, wish)
            if choice.type == "json" and self._relations.needs_equality(table, column.name):
                # json has no equality: no key, no index, no comparison.
                policy = self._policy.column(table.name, column.name)
                choice = Choice.of(self._decider.wrap(_text_for(own), policy, wish))
            choices[column.name] = choice
        return choices

    def _decide(
        self,
        table: SourceTable,
        choices: dict[str, Choice],
        slow: Mapping[str, int],
        wishes: dict[tuple[str, str], Wish],
    ) -> None:
        for column in table.columns:
            if column.name in choices:
                self._decisions[table.name, column.name] = self._decider.decide(
                    table,
                    column,
                    self._facts[table.name][column.name],
                    choices[column.name],
                    slow=slow[column.name],
                    wish=wishes.get((table.name, column.name)),
                )

    def _settle_maps(self) -> None:
        """Mark the maps that keep every two values of their column apart."""
        for (name, column), decision in self._decisions.items():
            rule = decision.rule
            if isinstance(rule, MapRule) and rule.patterns:
                self._settle_pattern(name, column, decision, rule)
                continue
            if not isinstance(rule, MapRule) or not rule.entries:
                continue
            if rule.bijective and not self._goes_both_ways(name, column, rule):
                self._settle_one_way(name, column, decision, rule)
            elif rule.bijective:
                table = self._catalogue.table(name)
                own = [e.source for e in rule.entries]
                decision.met = self._observer.some_of(table, column, own)
                decision.told_apart = not decision.examination.changed.count

    def _goes_both_ways(self, name: str, column: str, rule: MapRule) -> bool:
        """Whether no value of the column but the entries' own ends as one of theirs."""
        if self._maps_a_default(name, column):
            return False  # the words of a default: a new truth value is 0 or 1
        own = [e.source for e in rule.entries]
        others = [
            e.target
            for e in rule.entries
            if e.target is not None and not any(same(e.target, v) for v in own)
        ]
        table, facts = self._catalogue.table(name), self._facts[name][column]
        if rule.inner.kind in ("integer", "real", "numeric") and (
            self._observer.count_of(table, column, own) < facts.values
        ):
            return False  # odd values among numbers: a new number is that number
        return not others or not self._observer.count_of(table, column, others)

    def _settle_one_way(self, name: str, column: str, decision: Decision, rule: MapRule) -> None:
        one_way = rule.model_copy(update={"bijective": False})
        table, facts = self._catalogue.table(name), self._facts[name][column]
        decision.rule = one_way
        decision.examination = self._decider.examine(table, column, facts, one_way)
        decision.met = decision.examination.changed

    def _settle_pattern(self, name: str, column: str, decision: Decision, rule: MapRule) -> None:
        """Let patterns be the column's rule forth and back where they bring every value back."""
        facts = self._facts[name][column]
        decision.met = decision.examination.changed
        if not rule.bijective:
            return
        if not decision.examination.slow:
            decision.met, decision.told_apart = Rows(count=facts.values), True
            return
        examination = decision.examination
        self._settle_one_way(name, column, decision, rule)
        # Odd values among numbers: a new number is that number.
        odd = rule.inner.kind in ("integer", "real", "numeric", "integer-text")
        met = decision.met.count
        if not examination.changed.count and not (odd and met < facts.values):
            decision.rule, decision.examination, decision.told_apart = rule, examination, True

    def _maps_a_default(self, table: str, name: str) -> bool:
        """Whether the column's map is that of its default, and not the policy's."""
        column = _column(self._catalogue.table(table), name)
        decision = self._decisions[table, name]
        of_default = decision.type == "boolean" and truth_word(column.default) is not None
        return of_default and not self._policy.column(table, name).entries

    def _agree_on_types(self) -> set[Relation]:
        """Give both ends of every foreign key one type; what cannot agree is not carried."""
        dropped: set[Relation] = set()
        for table, key, why in self._relations.broken:
            self._findings.add(
                "foreign-key-not-carried",
                "by-action",
                f"foreign key ({', '.join(key.columns)}) to {key.parent}: {why}",
                table=table,
                item=f"{table}.{key.columns[0]}",
            )
        for relation in self._relations.all:
            ends = {place for pair in relation.pairs for place in pair}
            if any(place not in self._decisions for place in ends):
                dropped.add(relation)
        for _ in range(len(self._relations.all) + 1):
            changed = False
            for relation in self._relations.all:
                if relation in dropped:
                    continue
                for child, parent in relation.pairs:
                    verdict = self._relate(child, parent)
                    if verdict is None:
                        dropped.add(relation)
                        self._findings.add(
                            "foreign-key-not-carried",
                            "by-action",
                            f"{relation.text}: the two sides hold values of different types "
                            f"({self._decisions[child].type} and "
                            f"{self._decisions[parent].type})",
                            table=relation.child,
                            item=f"{relation.child}.{child[1]}",
                        )
                        break
                    changed = changed or verdict
            if not changed:
                return dropped
        return dropped

    def _relate(self, child: tuple[str, str], parent: tuple[str, str]) -> bool | None:
        """Whether a side had to change for the two to have one type; None where none is found."""
        left, right = self._decisions[child], self._decisions[parent]
        if left.type == right.type:
            # To SQLite the text 0.0 refers to the number 0; widened, they are two texts.
            kinds = {left.rule.kind, right.rule.kind}
            widened = left.rule.widened or right.rule.widened
            return None if widened and len(kinds) > 1 else False
        for end, rule in common(left.rule, right.rule, self._facts[child[0]][child[1]].classes):
            place = child if end == "child" else parent
            table = self._catalogue.table(place[0])
            column = _column(table, place[1])
            if column.name == table.rowid_alias and not _is_integer(rule):
                return None  # it would lose its generator for the sake of one reference
            facts = self._facts[place[0]][column.name]
            decision = self._decider.forced(table, column, facts, Choice.of(rule))
            bad = self._decisions[place].quarantined
            if (decision.examination.cannot.ids | decision.examination.bad.ids) - bad.keys():
                return None
            decision.quarantined = bad
            self._decisions[place] = decision
        if self._decisions[child].type != self._decisions[parent].type:
            return None
        return True

    def _report(self, table: SourceTable) -> None:
        for column in table.columns:
            decision = self._decisions.get((table.name, column.name))
            facts = self._facts[table.name][column.name]
            if decision is None:
                self._findings.add(
                    "generated-unreadable",
                    "error",
                    f"the generated column cannot be read: {facts.unreadable}; "
                    "it would be left out",
                    table=table.name,
                    column=column.name,
                )
            elif not column.generated:
                self._decider.report_changes(table, column, facts, decision)

    # ---------------------------------------------------------------------------- quarantine

    def _set_aside(self) -> None:
        for (table, column), decision in self._decisions.items():
            if decision.quarantined:
                self._set_aside_values(table, column, decision)
        for table_ in self._catalogue.tables:
            for column_ in table_.columns:
                facts = self._facts[table_.name][column_.name]
                if self._required(table_, column_) and facts.nulls:
                    self._null_in_required(table_, column_, facts)
                elif column_.primary_key and facts.nulls:
                    self._null_in_key(table_, column_, facts)

    def _set_aside_values(self, table: str, column: str, decision: Decision) -> None:
        grouped: dict[str, set[Row]] = {}
        for row, why in decision.quarantined.items():
            grouped.setdefault(why, set()).add(row)
        for why, rows in grouped.items():
            self._quarantine.add(table, rows, Reason(column=column, text=why))

    def _required(self, table: SourceTable, column: SourceColumn) -> bool:
        if column.generated:
            return False
        return column.not_null or self._profile.not_null(table.name, column.name)

    def _aside(self, table: str, rows: Rows, reason: str, column: str | None = None) -> None:
        """Set rows aside; more than can be told one by one stop the run."""
        self._quarantine.add(table, rows.ids, Reason(column=column, text=reason))
        if rows.count > len(rows.ids):
            self._findings.add(
                "too-many-rows",
                "error",
                f"{count_rows(rows.count)} would go to quarantine ({reason}), more than "
                f"{MAX_SINGLED_OUT:,}: that is no longer a few rows at fault",
                table=table,
                rows=rows,
                settle=settle_table(table, action="widen", orphans="keep"),
            )

    def _null_in_required(
        self, table: SourceTable, column: SourceColumn, facts: ColumnFacts
    ) -> None:
        rows = self._quarantine.rows_where(table, is_null(column.name))
        action = self._findings.action_for(table.name, column.name)
        text = f"NULL in a NOT NULL column ({count_rows(facts.nulls)})"
        if action == "quarantine":
            self._aside(table.name, rows, "NULL in a NOT NULL column", column.name)
            text += "; to quarantine by the policy"
        elif action != "block":
            text += "; the target's column allows NULL"
        self._findings.add(
            "null-in-not-null",
            "error" if action == "block" else "warning",
            text,
            table=table.name,
            column=column.name,
            rows=rows,
            settle=settle_column(table.name, column.name, action="widen"),
        )

    def _null_in_key(self, table: SourceTable, column: SourceColumn, facts: ColumnFacts) -> None:
        rows = self._quarantine.rows_where(table, is_null(column.name))
        text = f"NULL in the primary key ({count_rows(facts.nulls)})"
        if self._findings.action_for(table.name, column.name) == "quarantine":
            self._aside(table.name, rows, "NULL in the primary key", column.name)
            text += "; to quarantine by the policy"
        else:
            text += ": the target gets a UNIQUE constraint instead of a PRIMARY KEY"
        self._findings.add(
            "null-in-primary-key",
            "by-action",
            text,
            table=table.name,
            column=column.name,
            rows=rows,
        )

    def _find_too_large(self) -> None:
        for table in self._catalogue.tables:
            if len(table.columns) > MAX_COLUMNS:
                continue  # it is an error already, and more columns than one query may ask for
            self._find_too_long(table)
            rules = {
                c.name: self._decisions[table.name, c.name].rule
                for c in table.columns
                if (table.name, c.name) in self._decisions
            }
            rows = find_too_large(self._connection, self._catalogue, table, rules)
            if not rows.count:
                continue
            text = (
                f"{count_rows(rows.count)} of more than {MAX_ROW_BYTES:,} bytes, long values not "
                "counted: a row of PostgreSQL's has to fit on a page of 8 KiB"
            )
            aside = self._findings.action_for(table.name) == "quarantine"
            if aside:
                self._aside(table.name, rows, "too large for a page")
                text += "; to quarantine by the policy"
            else:
                text += ". Split the table on the source to keep them in it"
            self._findings.add(
                "row-too-large",
                "warning" if aside else "error",
                text,
                table=table.name,
                rows=rows,
                settle=settle_table(table.name, action="quarantine"),
            )

    def _find_too_long(self, table: SourceTable) -> None:
        rows = find_too_long(self._connection, self._catalogue, table, self._facts[table.name])
        if rows.count:
            self._findings.add(
                "row-too-long",
                "error",
                f"{count_rows(rows.count)} of more than {MAX_TEXT_BYTES:,} bytes as text, of which "
                "a blob's bytes count twice: neither SQLite nor PostgreSQL handles more at once. "
                "Split the values on the source, or keep them in files: no policy settles this",
                table=table.name,
                rows=rows,
                settle="",
            )

    def _find_collisions(self) -> None:
        for table in self._catalogue.tables:
            for columns in _unique_keys(table):
                decisions = [self._decisions.get((table.name, c)) for c in columns]
                known = [d for d in decisions if d is not None]
                doubtful = any(not d.exact and not d.told_apart for d in known)
                if len(known) < len(decisions) or not doubtful:
                    continue
                rows = find_collisions(
                    self._connection,
                    table,
                    columns,
                    [d.rule for d in known],
                    encoding=self._catalogue.encoding,
                )
                if not rows.count:
                    continue
                text = (
                    f"{count_rows(rows.count)} with a key ({', '.join(columns)}) that another "
                    "row has on the target, though not on the source"
                )
                if self._findings.action_for(table.name) == "quarantine":
                    why = f"the key ({', '.join(columns)}) is another row's on the target"
                    self._aside(table.name, rows, why)
                    text += "; to quarantine by the policy"
                else:
                    self._collided.add((table.name, columns))
                    text += "; the target has no such key"
                self._findings.add(
                    "key-collides",
                    "by-action",
                    text,
                    table=table.name,
                    item=f"{table.name}.{columns[0]}",
                    rows=rows,
                )

    def _try_checks(self) -> None:
        """Rows may break their own CHECKs: written before it, or with checks ignored."""
        for table in self._catalogue.tables:
            for number, check in enumerate(table.checks, 1):
                try:
                    rows = self._quarantine.rows_where(table, f"NOT ({check})")
                except apsw.Error:
                    # It calls what only the application has; it is not carried over either.
                    continue
                place = f"{table.name}.{number}"
                self._judge_constraint(
                    table, place, "check-violated", f"CHECK ({' '.join(check.split())})", rows
                )

    def _try_wished_constraints(self) -> None:
        for table in self._catalogue.tables:
            wished = self._profile.tables.get(fold(table.name))
            if wished is None:
                continue
            present = {fold(c.name) for c in table.columns}
            for name, check in wished.checks:
                named = {fold(c.name) for c in check_columns(check)}
                if named <= present:
                    rows = self._quarantine.rows_where(table, f"NOT ({in_sqlite(check)})")
                    self._judge_constraint(table, name, "check-violated", f"CHECK ({check})", rows)
            for columns in wished.uniques:
                if {fold(c) for c in columns} <= present:
                    rows = self._quarantine.duplicates(table, columns)
                    self._judge_constraint(
                        table,
                        unique_name(wished.name, columns),
                        "unique-violated",
                        f"UNIQUE ({', '.join(columns)})",
                        rows,
                    )

    def _judge_constraint(
        self, table: SourceTable, name: str, code: str, what: str, rows: Rows
    ) -> None:
        if not rows.count:
            return
        text = f"{count_rows(rows.count)} against {what}"
        if self._findings.action_for(table.name) == "quarantine":
            self._aside(table.name, rows, f"against {what}")
            text += "; to quarantine by the policy"
        else:
            self._broken.setdefault(table.name, set()).add(name)
            text += "; without it the rows can be carried"
        self._findings.add(code, "by-action", text, table=table.name, item=name, rows=rows)

    def _spelling(self, child: Place, parent: Place) -> Spelling:
        """How the target compares a reference with its parent."""
        ends = (child, parent)
        kinds = {self._decisions[end].rule.kind for end in ends}
        classes = set().union(*(self._facts[table][column].classes for table, column in ends))
        if len(kinds) > 1 or not {"integer", "real"} <= classes:
            return "same"
        spellings: dict[str, Spelling] = {"widened-text": "text", "numeric": "decimal"}
        return spellings.get(kinds.pop(), "same")

    def _orphans(self, dropped: set[Relation]) -> set[Relation]:
        """Look for rows without their parent; the foreign keys that cannot be validated."""
        unvalidated: set[Relation] = set()
        rules = {place: decision.rule for place, decision in self._decisions.items()}
        relations = [
            r for r in self._relations.all if r not in dropped and r.parent in self._targets
        ]

        def look(reader: _Reader, relation: Relation) -> Rows:
            spellings = [self._spelling(*pair) for pair in relation.pairs]
            return reader.quarantine.orphans(relation, rules, spellings)

        for relation, rows in zip(relations, self._at_once(look, relations), strict=True):
            if not rows.count:
                continue
            orphans = (
                self._policy.table(relation.child).orphans
                or self._policy.orphans
                or {"widen": "keep"}.get(
                    self._findings.action_for(relation.child),
                    self._findings.action_for(relation.child),
                )
            )
            text = f"{relation.text}: {count_rows(rows.count)} without a parent"
            if orphans == "quarantine":
                column = relation.columns[0] if len(relation.columns) == 1 else None
                self._aside(relation.child, rows, f"no parent for the {relation.text}", column)
                text += "; to quarantine by the policy"
            else:
                unvalidated.add(relation)
                text += (
                    "; kept, and the foreign key guards new rows only (NOT VALID)"
                    if orphans == "keep"
                    else ""
                )
            self._findings.add(
                "orphans",
                "error" if orphans == "block" else "warning",
                text,
                table=relation.child,
                column=relation.columns[0] if len(relation.columns) == 1 else None,
                rows=rows,
                settle=settle_table(relation.child, orphans="keep") if orphans == "block" else "",
            )
        return unvalidated

    def _report_quarantine(self) -> None:
        for table, reasons in self._quarantine.summary():
            dependent = reasons.get("dependent", 0)
            if dependent:
                self._findings.add(
                    "quarantined-with-parent",
                    "warning",
                    f"{count_rows(dependent)} to quarantine with what they refer to",
                    table=table,
                    count=dependent,
                )

    # ---------------------------------------------------------------------------- the tables

    def _views(self) -> list[TableView]:
        found: list[TableView] = []
        for table in self._catalogue.tables:
            columns: dict[str, ColumnView] = {}
            for column in table.columns:
                decision = self._decisions.get((table.name, column.name))
                if decision is not None:
                    columns[column.name] = ColumnView(
                        source=column,
                        target=self._columns[table.name, column.name],
                        type=decision.type,
                        rule=decision.rule,
                        facts=self._facts[table.name][column.name],
                        exact=decision.exact,
                    )
            found.append(
                TableView(table, self._targets[table.name], columns, self._catalogue.encoding)
            )
        return found

    def _table(
        self,
        table: SourceTable,
        objects: Objects,
        dropped: set[Relation],
        orphaned: set[Relation],
    ) -> TablePlan:
        broken = self._broken.get(table.name, set())
        parts = objects.of_table(table, {c for t, c in self._collided if t == table.name}, broken)
        columns = tuple(self._column_plans(table, parts.defaults, parts.generated))
        by_source = {c.source: c.target for c in columns if c.source is not None}
        primary, uniques = self._keys(table, by_source, objects)
        return self._profile.merge(
            TablePlan(
                source=table.name,
                target=self._targets[table.name],
                columns=columns,
                primary_key=primary,
                primary_key_name=(
                    objects.key_name(table)
                    or self._free(table, f"{self._targets[table.name]}_pkey")
                )
                if primary
                else None,
                uniques=(*uniques, *parts.uniques),
                checks=(*parts.checks, *refusals(table, self._targets[table.name], columns)),
                foreign_keys=tuple(self._foreign_keys(table, dropped, orphaned)),
                indexes=parts.indexes,
                key=self._row_key(table),
                rows=max((f.rows for f in self._facts[table.name].values()), default=0),
                widest=sum(f.heaviest for f in self._facts[table.name].values()),
                quarantine=self._quarantine.predicates(table),
                reasons=self._quarantine.reasons(table),
                without_rowid=table.without_rowid,
                source_checks=parts.source_checks,
            ),
            table,
            broken,
            self._findings,
            objects.widths,
        )

    def _column_plans(
        self, table: SourceTable, defaults: dict[str, str], generated: dict[str, str]
    ) -> Iterator[ColumnPlan]:
        for column in table.columns:
            decision = self._decisions.get((table.name, column.name))
            if decision is None:
                continue
            nulls = self._facts[table.name][column.name].nulls
            rule = decision.rule.under(column.affinity)
            identity = (
                column.name == table.rowid_alias
                and _is_integer(rule)
                and not self._relations.from_parent(table.name, column.name)
            )
            target, own = self._targets[table.name], self._columns[table.name, column.name]
            yield ColumnPlan(
                source=column.name,
                target=own,
                type=decision.type,
                rule=rule,
                not_null=(self._required(table, column) or _made_not_null(column, generated))
                and (not nulls or self._nulls_set_aside(table, column))
                and not _maps_to_null(rule),
                default=None if identity else defaults.get(column.name),
                generated=generated.get(column.name),
                identity=identity,
                sequence=self._free(table, f"{target}_{own}_seq") if identity else None,
                clean=decision.clean,
                nulls=bool(nulls) or _maps_to_null(rule),
                reason=decision.reason,
            )

    def _free(self, table: SourceTable, name: str) -> str | None:
        """A name of one's own where PostgreSQL's choice is another relation's; else None."""
        if name not in self._taken:
            return None
        return naming.distinct(naming.cut(name), f"{table.name} {name}", self._taken)

    @cached_property
    def _taken(self) -> set[str]:
        """Names of relations, once every table has its own."""
        return set(self._targets.values()) | {
            *(o.name for o in self._catalogue.others),
            *(i.name for t in self._catalogue.tables for i in t.indexes),
            *(i.constraint for t in self._catalogue.tables for i in t.indexes if i.constraint),
            *(t.primary_key_name for t in self._catalogue.tables if t.primary_key_name),
        }

    def _nulls_set_aside(self, table: SourceTable, column: SourceColumn) -> bool:
        return self._findings.action_for(table.name, column.name) == "quarantine"

    def _keys(
        self, table: SourceTable, targets: dict[str, str], objects: Objects
    ) -> tuple[tuple[str, ...], tuple[UniquePlan, ...]]:
        if not table.primary_key or any(c not in targets for c in table.primary_key):
            return (), ()
        key = (table.name, table.primary_key)
        if key in self._collided or key in self._impossible:
            return (), ()
        columns = tuple(targets[c] for c in table.primary_key)
        facts = self._facts[table.name]
        nulls = [c for c in table.primary_key if facts[c].nulls]
        if all(self._nulls_set_aside(table, _column(table, c)) for c in nulls):
            return columns, ()
        name = objects.key_name(table) or objects.reserve(
            f"{self._targets[table.name]}_key", f"{table.name} key"
        )
        return (), (UniquePlan(name=name, columns=columns),)

    def _row_key(self, table: SourceTable) -> tuple[str, ...]:
        candidates: list[tuple[str, ...]] = []
        if table.primary_key:
            candidates.append(table.primary_key)
        for index in table.indexes:
            names = tuple(c.column for c in index.columns if c.column is not None)
            whole = index.unique and index.where is None and len(names) == len(index.columns)
            if whole and all(_column(table, n).not_null for n in names):
                candidates.append(names)
        for names in candidates:
            if all(self._identifies(table, n) for n in names):
                return names
        return ()

    def _identifies(self, table: SourceTable, name: str) -> bool:
        decision = self._decisions.get((table.name, name))
        column = _column(table, name)
        if decision is None or column.generated or self._facts[table.name][name].nulls:
            return False
        if isinstance(decision.rule, MapRule):
            return decision.told_apart
        # 1.0 and 1.00 are one number, and two texts.
        loose = isinstance(decision.rule, DecimalTextRule) and decision.rule.precision is None
        return decision.exact and not loose and decision.type not in ("json", "jsonb")

    def _foreign_keys(
        self, table: SourceTable, dropped: set[Relation], orphaned: set[Relation]
    ) -> Iterator[ForeignKeyPlan]:
        taken: set[str] = set()
        for relation in self._relations.of(table.name):
            if relation in dropped:
                continue
            key = relation.key
            if any(
                t == relation.parent and set(c) == set(relation.parent_columns)
                for t, c in self._collided | self._impossible
            ):
                self._findings.add(
                    "foreign-key-not-carried",
                    "by-action",
                    f"{relation.text}: {relation.parent} has no such key on the target",
                    table=table.name,
                    item=f"{table.name}.{key.columns[0]}",
                )
                continue
            columns = tuple(self._columns[table.name, c] for c in relation.columns)
            name = naming.distinct(
                naming.cut(f"{self._targets[table.name]}_{'_'.join(columns)}_fkey"),
                f"{table.name} {relation.text}",
                taken,
            )
            taken.add(name)
            if key.constraint:
                name = naming.cut(key.constraint)
            yield ForeignKeyPlan(
                name=name,
                columns=columns,
                parent=self._targets[relation.parent],
                parent_columns=tuple(
                    self._columns[relation.parent, c] for c in relation.parent_columns
                ),
                on_update=key.on_update,
                on_delete=key.on_delete,
                initially_deferred=key.deferred,
                validated=relation not in orphaned,
            )

    def _sequences(self, tables: Sequence[TablePlan]) -> Iterator[SequencePlan]:
        for plan in tables:
            if plan.source is None:
                continue
            table = self._catalogue.table(plan.source)
            for column in plan.columns:
                if column.identity and column.source is not None:
                    high = self._facts[table.name][column.source].high or 0
                    yield SequencePlan(
                        table=plan.target,
                        column=column.target,
                        last_value=max(0, high, table.sequence or 0),
                    )


def is_null(column: str) -> str:
    """A predicate over ``t`` that SQLite does not answer from a NOT NULL declaration, which old
    rows may break."""
    return f"typeof(t.{sqlite_name(column)}) = 'null'"


def _unique_keys(table: SourceTable) -> list[tuple[str, ...]]:
    """The column lists of the primary key and of every unique index over plain columns."""
    found = [table.primary_key] if table.primary_key else []
    for index in table.indexes:
        columns = tuple(t.column for t in index.columns if t.column is not None)
        if index.unique and len(columns) == len(index.columns) and columns not in found:
            found.append(columns)
    return found


def _column(table: SourceTable, name: str) -> SourceColumn:
    return next(c for c in table.columns if fold(c.name) == fold(name))


def _text_for(facts: ColumnFacts) -> Rule:
    return TextRule() if facts.classes <= {"text"} else WidenedTextRule()


def _is_integer(rule: Rule) -> bool:
    return isinstance(rule, IntegerRule)


def _made_not_null(column: SourceColumn, generated: dict[str, str]) -> bool:
    """Whether the target makes the column's values itself and has to refuse a NULL among them."""
    return column.not_null and column.name in generated


def _maps_to_null(rule: Rule) -> bool:
    return isinstance(rule, MapRule) and any(e.target is None for e in rule.entries)
