/* The move between two servers of PostgreSQL, as docs/design.md ("Upgrade") states it, for spin.
 *
 * What is modelled
 *   servers     rows, whether closed, the epoch on record, the certificate, and what is in their log for
 *               the other's slot; server 0 is the old one, 1 the new one
 *   replication a subscription on each server: none, made, enabled; rows that arrive are in the log too
 *   PgBouncer   where the alias leads, PAUSE
 *   writers     through the alias, and one in a session of its own on the old server, which commits
 *               when it likes
 *   the job     MOVES moves, there and back in turn; it dies at any step, CRASHES times, and whoever
 *               comes next (the process beside it, or the command) goes by the record
 *
 * The rules are those of protocol.pml, by their numbers: 1 both sides open; 2 a side is open that lacks an
 * acknowledged write; 3 a decision without all of it certified; 4 at rest, and not served; 5 a row is
 * sent back to where it came from (a conflict, or an older value over a newer); 6 a request turned away.
 *
 * Each OMIT switch leaves one step out, each EARLY one takes it too soon.
 */

#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef MOVES
#define MOVES 2
#endif
#define BIT(r) (1 << (r))
#define OWN BIT(WRITERS)        /* the row of the session that goes round the pooler */

byte rows[2], out[2], epoch[2], certified[2], subscribed[2];
bool closed[2], slot[2];
byte acked, alias, crashes = CRASHES, moves = MOVES;
bool paused, session, at_rest;

inline commit(server, row) {
    rows[server] = rows[server] | row;
    acked = acked | row;
    if
    :: slot[server] -> out[server] = out[server] | row
    :: else
    fi
}

/* Through the alias: held while it is paused, turned away where it leads to a closed server. */
proctype writer(byte number) {
    atomic {
        !paused;
        if
        :: closed[alias] -> assert(0 == 6)
        :: else -> commit(alias, BIT(number))
        fi
    }
}

/* A session of its own: it begins while the old server is open, and commits where it was not ended. */
proctype direct() {
    if
    :: atomic { !closed[0] -> session = true }
       atomic {
           if
           :: session -> session = false; commit(0, OWN)
           :: else
           fi
       }
    :: skip
    fi
}

/* What one server has in its log for the other arrives there, row by row. */
proctype replication(byte to) {
    byte r;
end:
    do
    :: atomic {
           subscribed[to] == 2 && out[1 - to] != 0;
           r = 0;
           do
           :: (out[1 - to] & BIT(r)) != 0 -> break
           :: else -> r++
           od;
           out[1 - to] = out[1 - to] & ~BIT(r);
           if :: (rows[to] & BIT(r)) != 0 -> assert(0 == 5) :: else fi;
           rows[to] = rows[to] | BIT(r);
           if
           :: slot[to] -> out[to] = out[to] | BIT(r)
           :: else
           fi
       }
    od
}

#define STEP if :: crashes > 0 -> crashes--; goto again :: skip fi

proctype job() {
    byte number, serving, left, source, target;
again:
    /* what everybody goes by */
    atomic {
        number = (epoch[0] > epoch[1] -> epoch[0] : epoch[1]);
        serving = number % 2;
        left = 1 - serving
    }
    if
    :: epoch[serving] < number ->
        if :: certified[serving] != number -> assert(0 == 3) :: else fi;
        atomic { closed[serving] = false; epoch[serving] = number }
    :: else ->
#ifndef OMIT_UNDO
        closed[serving] = false
#else
        skip
#endif
    fi;
    STEP;
#ifndef OMIT_ALIAS
    alias = serving;
#endif
    STEP;
#ifndef OMIT_RESUME
    paused = false;
#endif
    STEP;
#ifdef EARLY_ENABLE
    if
    :: subscribed[left] == 1 && number > 0 -> subscribed[left] = 2
    :: else
    fi;
    STEP;
#endif
    subscribed[serving] = 0;
    STEP;
    atomic { slot[left] = false; out[left] = 0 };
    STEP;
    if
    :: subscribed[left] == 1 -> subscribed[left] = 2
    :: else
    fi;
    STEP;
    /* the next move */
    if
    :: moves > 0 -> moves--
    :: true -> goto done
    fi;
    source = serving;
    target = left;
    slot[source] || subscribed[target] == 2;
    atomic { slot[target] = true; subscribed[source] = 1 };
    STEP;
#ifndef OMIT_PAUSE
    paused = true;
#endif
    STEP;
#ifndef OMIT_FENCE
    closed[source] = true;
#endif
    STEP;
#ifndef OMIT_SESSIONS
    if
    :: source == 0 -> session = false
    :: else
    fi;
#endif
    STEP;
#ifndef OMIT_DRAIN
    out[source] == 0;
#endif
    STEP;
#ifdef EARLY_OPEN
    closed[target] = false;
    STEP;
#endif
    certified[target] = number + 1;
    STEP;
#ifndef OMIT_BEGIN_AFTER
    out[target] = 0;
#endif
    STEP;
    atomic {
        if :: (rows[source] & ~rows[target]) != 0 -> assert(0 == 3) :: else fi;
        epoch[source] = number + 1
    };
    STEP;
    goto again;
done:
    at_rest = true
}

/* At every moment. */
proctype rules() {
end:
    do
    :: atomic { !closed[0] && !closed[1] -> assert(0 == 1) }
    :: atomic { !closed[0] && (acked & ~rows[0]) != 0 -> assert(0 == 2) }
    :: atomic { !closed[1] && (acked & ~rows[1]) != 0 -> assert(0 == 2) }
    :: atomic { at_rest && (paused || closed[alias]) -> assert(0 == 4) }
    od
}

init {
    atomic {
        /* prepared: the new server has all rows, is closed, and follows */
        closed[1] = true;
        slot[0] = true;
        subscribed[1] = 2;
        run replication(0);
        run replication(1);
        byte n = 0;
        do
        :: n < WRITERS -> run writer(n); n++
        :: else -> break
        od;
        run direct();
        run job();
        run rules()
    }
}
