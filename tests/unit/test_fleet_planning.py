"""How the files of a fleet come to plans, with made-up looks in the place of files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import yaml

from migration_job.fleet.planning import agree, with_wishes
from migration_job.fleet.tasks import ColumnSeen, Failed, Looked, Seen

FITS = {"integer": 1, "bigint": 2, "numeric": 3, "text": 9}
"""A type, and how wide it is; a value of a column needs so much."""


def looked(need: int, *, schema: str = "s", wish: str | None = None, column: str = "c") -> Looked:
    """A file whose one column needs a type that is as wide as that."""
    own = next(name for name, width in FITS.items() if width >= need)
    there = own if wish is None or FITS[wish] < need else wish
    shape = json.dumps(
        {
            "tables": {
                "t": {
                    "columns": {column: {"type": there}},
                    "order": [column],
                    "primary key": [],
                    "constraints": {},
                    "indexes": {},
                }
            },
            "views": {},
            "sequences": [],
            "extensions": [],
            "after load": [],
        }
    )
    # Text takes a number only with a row in the ledger.
    unclean = frozenset({("t", column)}) if there == "text" and need < 9 else frozenset()
    seen = Seen((ColumnSeen(("t", column), there, ("t", column)),), unclean, frozenset(), 0)
    return Looked(schema, shape, seen, "", 1)


class Files:
    """Files by what they need, and who looks at them again."""

    def __init__(self, **needs: int) -> None:
        self.needs = needs
        self.asked: list[tuple[str, ...]] = []

    def looks(self) -> dict[str, Looked | Failed]:
        return {tenant: looked(need) for tenant, need in self.needs.items()}

    def again(self, tenants: Sequence[str], policy: str) -> Mapping[str, Looked | Failed]:
        self.asked.append(tuple(sorted(tenants)))
        wish = yaml.safe_load(policy)["tables"]["t"]["columns"]["c"]["type"]
        return {tenant: looked(self.needs[tenant], wish=wish) for tenant in tenants}


def test_files_that_are_alike_are_looked_at_once() -> None:
    files = Files(a=1, b=1)
    agreed = agree(files.looks(), "", files.again)
    assert agreed.plan_of == {"a": 1, "b": 1}
    assert files.asked == []
    assert agreed.plans[0].policy == ""


def test_the_widest_need_gives_the_type() -> None:
    files = Files(a=1, b=1, c=1, d=3, e=2)
    agreed = agree(files.looks(), "default: block\n", files.again)
    assert set(agreed.plan_of.values()) == {1}
    assert json.loads(agreed.plans[0].wishes) == [["t", "c", "numeric"]]
    assert yaml.safe_load(agreed.plans[0].policy) == {
        "default": "block",
        "tables": {"t": {"columns": {"c": {"type": "numeric"}}}},
    }


def test_a_type_that_would_change_others_values_is_nobodys_but_its_own() -> None:
    files = Files(a=1, b=1, wide=9)
    agreed = agree(files.looks(), "", files.again)
    assert agreed.plan_of["a"] == agreed.plan_of["b"] == 1
    outlier = agreed.plans[agreed.plan_of["wide"] - 1]
    assert not outlier.common
    assert outlier.wishes == "[]"
    assert outlier.reason == "table t column c: type text and not integer"


def test_the_plan_of_most_files_is_the_fleets() -> None:
    looks: dict[str, Looked | Failed] = {"x": looked(1, schema="other", column="d")}
    looks |= {"a": looked(1), "b": looked(1), "broken": Failed(2, "why")}
    agreed = agree(looks, "", Files(a=1, b=1, x=1).again)
    assert [p.common for p in agreed.plans] == [True, False]
    assert agreed.plan_of == {"a": 1, "b": 1, "x": 2}
    assert agreed.plans[1].reason == "no table t column c, table t column d more"
    assert set(agreed.failed) == {"broken"}


def test_what_is_on_the_target_already_is_not_argued_with() -> None:
    first = Files(a=2)
    before = agree(first.looks(), "", first.again).plans
    later = Files(small=1, large=3)
    agreed = agree(later.looks(), "", later.again, before)
    assert agreed.plan_of["small"] == 1
    assert agreed.plan_of["large"] == 2
    assert next(p.shape for p in agreed.plans) == before[0].shape


def test_wishes_stand_beside_what_the_policy_says() -> None:
    policy = "tables: {T: {columns: {C: {zone: UTC}}}}\n"
    assert yaml.safe_load(with_wishes(policy, {("t", "c"): "bigint"})) == {
        "tables": {"T": {"columns": {"C": {"zone": "UTC", "type": "bigint"}}}}
    }
