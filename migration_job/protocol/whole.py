"""Check that the source is still the file that this target follows, and that its capture is whole:
in each round, and again with the writers held.

Four checks, each cheap:

* the file: its path still names the inode that is open, and so do the files beside it
* the state's token, which each of the job's own transactions of consequence renews, and the
  token of the log's row up to which the target has followed: an older copy of the file has others,
  even where its log has reached the same position again
* the capture's own triggers and tables, by their text
* the application's schema

These checks see the present state only. Where the schema cookie says that something may have
changed and been undone, or an earlier check has found a gap that is closed by now, the content is
compared in full first (:mod:`migration_job.protocol.content`).
"""

from __future__ import annotations

import contextlib

import apsw
import psycopg

from migration_job.errors import JobError
from migration_job.protocol.run_context import Pair
from migration_job.protocol.tokens import forgot, forgotten, fresh
from migration_job.stores.postgres import capture as target_capture
from migration_job.stores.postgres import pair_identity, target_fence
from migration_job.stores.postgres.pair_identity import Identity
from migration_job.stores.postgres.session import Unconfirmed
from migration_job.stores.sqlite import fence, whole
from migration_job.stores.sqlite.fence import SourceState
from migration_job.stores.sqlite.whole import START_OVER, NotWhole


def require_file(pair: Pair) -> None:
    """Raises NotWhole where the path names another file than the one that is open, or none."""
    pair.file.require()


def require_identity(pair: Pair, state: SourceState, *, followed: bool = False) -> Identity | None:
    """Gives what the target knows the source by. Raises NotWhole where the source is an older copy
    of the one that this target follows; Forgotten where the target is the older one and SQLite
    serves, unless the decision is ``followed`` next, which looks at that itself."""
    known = pair_identity.read_identity(pair.target)
    if forgot(known, state):
        if followed or state.closed:
            return known
        raise forgotten(state)
    if known is None:
        return None
    if state.token == known.next_token != known.token:
        pair_identity.confirm_token(pair.target)
    elif state.token != known.token:
        raise _put_back(pair, "its state is not the one that the target has taken note of")
    last = fence.last_position(pair.source)
    if last < known.position:
        raise _put_back(
            pair, f"the target has followed its log to {known.position}, and the log ends at {last}"
        )
    token = fence.token_at(pair.source, known.position)
    if known.log_token is not None and token is not None and token != known.log_token:
        raise _put_back(
            pair,
            f"the log's row {known.position} is another than the one that the target has followed",
        )
    return known


def require_capture(pair: Pair, *, again: bool = False) -> None:
    """Raises NotWhole, naming what is missing and since when, where the capture's own objects are
    not as they were made. Within one state of the file it looks once, unless ``again``."""
    seen = int(pair.source.pragma("data_version"))
    if pair.whole_at == seen and not again:
        return
    gaps = whole.own_gaps(pair.source)
    if gaps:
        pair.whole_at = None
        raise _lost(pair, whole.shown(gaps))
    pair.whole_at = seen


def _put_back(pair: Pair, found: str) -> NotWhole:
    return NotWhole(
        f"{pair.path} was put back to an older state or replaced by another copy: {found}",
        advice=_serving(pair) + START_OVER,
    )


def _lost(pair: Pair, gaps: str) -> NotWhole:
    return NotWhole(
        f"the change capture on {pair.path} is not whole: {gaps}; {since(pair)}",
        advice=_serving(pair) + "nothing more is copied; run `migration-job release` and "
        "`migration-job migrate --live` for a new copy",
    )


def since(pair: Pair) -> str:
    """From when on changes may be missing, in words."""
    known = pair_identity.read_identity(pair.target)
    if known is None:
        return "changes since then may be missing"
    return (
        f"it was last seen whole at {known.whole_at}, position {known.position} of its log: "
        "what was written since may be missing on the target"
    )


def _serving(pair: Pair) -> str:
    serves = not target_capture.installed(pair.target) or target_fence.is_closed(pair.target)
    return f"{'SQLite' if serves else 'PostgreSQL'} serves as before; "


# ---------------------------------------------------------------------------------- doubts


def doubtful(pair: Pair, state: SourceState) -> bool:
    """Whether something may have been missed that no look can see: the schema cookie has moved
    (VACUUM moves it too), or an earlier look has found a gap."""
    return state.doubt is not None or _cookie(pair) != state.schema_version


def note_doubt(pair: Pair, reason: str) -> None:
    """Have it remembered in the source itself that the content has to be proved before anything
    else counts. Where the source cannot be written to, the next look finds the gap again."""
    with contextlib.suppress(JobError, apsw.Error), fence.writing(pair.source, limit=1.0):
        fence.change_state(pair.source, doubt=reason)


def clear_doubt(pair: Pair, cookie: int) -> None:
    """The content was proved equal while the schema cookie was ``cookie``."""
    with fence.writing(pair.source, limit=5.0):
        if _cookie(pair) == cookie:
            fence.change_state(pair.source, doubt=None, schema_version=cookie)


def cookie(pair: Pair) -> int:
    """The schema cookie, as the present transaction sees it."""
    return _cookie(pair)


def _cookie(pair: Pair) -> int:
    return int(pair.source.pragma("schema_version"))


# ---------------------------------------------------------------------------------- tokens


def new_token(pair: Pair) -> str:
    """A token for a transaction of consequence on the source, on the target's disk when this
    returns. Without a commit there it means nothing; after one, :func:`confirm` or the next look
    takes note. Raises Forgotten where the target does not hold the one before."""
    state = pair.state()
    token = fresh(state.token)
    if not pair_identity.announce_token(pair.third, state.token, token):
        raise forgotten(state)
    return token


def confirm(pair: Pair) -> None:
    """The transaction has been committed. Where the target cannot be told now, the next look does
    it."""
    with contextlib.suppress(psycopg.Error, Unconfirmed):
        pair_identity.confirm_token(pair.third)
