/* The switch and the way back, as docs/design.md states them, for Debian's spin.
 *
 * What is modelled
 *   SQLite      rows and one register row, the change log, `closed`, the write lock of BEGIN IMMEDIATE
 *   PostgreSQL  rows and the register, `applied`, the certificate, the fence, the way-back queue, sessions
 *   PgBouncer   the alias file and what is loaded of it, PAUSE
 *   connection  what the application reads to find its database
 *   writers     read the connection, write there, ask again with the same request id when told that
 *               the data has moved, when turned away, when their session ends, or when the answer is lost
 *   job, sync   one code, under one lock; each may die between any two steps and be started again
 *   ghosts      a statement that a process sent before it died, and that the server runs later
 *   forgetting  (FORGET) PostgreSQL is put back to a state that it had: a failover to a standby that
 *               was behind. What it alone had acknowledged since is the operator's accepted loss;
 *               what SQLite has acknowledged or taken over is not. A target that serves, forgets and
 *               goes on serving has `forked`: then SQLite's rows must stay as they are. Not modelled:
 *               forgetting that a rollback has closed the fence, which nothing can prevent
 *
 *   leases      (LEASE) an operator holds the alias for maintenance, with an end that comes at any time
 *   altering    (ALTER) a column with a default is added on PostgreSQL while it serves: rows from before
 *               have its value, and no trigger has logged that; later rows have one of their own
 *
 * A request r inserts row r once and sets the register to r: the rows show what is lost, the
 * register shows what is stale. `truth` is what the last commit on a serving side left.
 *
 * The rules are asserted as `0 == n` by the process `rules`, in every reachable state:
 *   1  both sides can be written to
 *   2  a side is open that lacks an acknowledged write, or holds a stale value
 *   3  the decision was taken without a certificate for everything up to the fence
 *   4  everything has come to rest, and the application is not served
 *   5  a side is open that holds a value which was changed silently
 *   6  a request was turned away where it could have been held (the issue's "no failed request")
 *   7  what an operator holds was opened before its end
 *
 * FREEZE, LOSE and REPLACE are what happens to a holder, a trigger and the file. Not modelled: a trigger
 * taken from the closed file (whoever takes the lock off a door has both sides open; `sync` puts it back
 * and says so), `writable_schema`, which moves no cookie (the comparison is made in any case), and a
 * rename in the instant between the last look at the file and the commit.
 *
 * Each OMIT switch leaves one step out, each EARLY one takes it too soon; model/check.py asserts that
 * every one of them breaks a rule. START_SWITCHED, ROUNDS, CRASHES and the like choose the scenario.
 */

#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef PER
#define PER 1           /* requests of each writer */
#endif
#ifndef CRASHES
#define CRASHES 2       /* deaths of job and sync together */
#endif
#ifndef OPERATIONS
#define OPERATIONS 2    /* how often the operator starts the job: migrate, switch or rollback */
#endif
#ifndef RESTARTS
#define RESTARTS 1      /* of PgBouncer and PostgreSQL together */
#endif
#ifndef FAULTS
#define FAULTS 1        /* values that an application of changes gets wrong */
#endif
#ifdef START_SWITCHED
#define SWITCHED true
#else
#define SWITCHED false
#endif
#define REQUESTS (WRITERS * PER)
#define BIT(r) (1 << (r))
#define NOBODY 0
#define JOB 1
#define SYNC 2
#define NONE 0          /* the register before any request; request r writes r + 1 */

mtype = { SQLITE, POSTGRES, QUIET, APPLY, OPEN, SHUT, DELETE, HOLD };

/* ------------------------------------------------------------------ the SQLite file */
bool capture = SWITCHED;        /* triggers installed */
byte generation = SWITCHED;     /* which installation of them; 0 before the first */
bool closed = SWITCHED;         /* THE decision: false, SQLite serves; true, PostgreSQL does */
byte sq_rows, sq_reg;
byte log_n;                     /* positions in the change log */
byte log_row[4 * REQUESTS];     /* a death may have a row come back, and logged, twice */
byte sq_lock = NOBODY;          /* the write lock, where job or sync hold it across steps */
bool sq_wrong;                  /* a value that came back changed, and no ledger row for it */
#ifdef LOSE                     /* how often an application takes a trigger away; it may put it back */
bool whole = true;              /* all of the capture's triggers are there */
byte cookie, proven;            /* moves with all DDL; under which one the content was proved */
byte lost;
#define CAPTURES (capture && whole)
#else
#define CAPTURES capture
#endif
#ifdef REPLACE                  /* a backup of the file is renamed over it, once */
byte log_token[REQUESTS], last_token;   /* of each row of the log, never the same again */
byte pg_token;                  /* of the last row that the target has applied */
bool kept, replaced;
byte file;                      /* which inode the path names */
byte kept_sq_rows, kept_sq_reg, kept_n, kept_log[REQUESTS], kept_token[REQUESTS];
#define READ_TOKEN token = (n == 0 -> 0 : log_token[n - 1])
#define NOTE_TOKEN pg_token = token
byte ghost_token;
#define GHOST_TOKEN ghost_token = token
#define NOTE_GHOST pg_token = ghost_token; ghost_token = 0
#ifndef OMIT_TOKEN
#define SAME (applied <= log_n && (applied == 0 -> pg_token == 0 : log_token[applied - 1] == pg_token))
#else
#define SAME true
#endif
#else
#define READ_TOKEN skip
#define NOTE_TOKEN skip
#define GHOST_TOKEN skip
#define NOTE_GHOST skip
#define SAME true
#endif

/* ---------------------------------------------------------------------- PostgreSQL */
byte pg_rows, pg_reg;
byte applied;
byte pg_generation = SWITCHED;  /* position in the log, of which installation */
bool fenced = !SWITCHED;             /* migration.fence.closed */
byte queue;                     /* migration.reverse_log */
bool certified = SWITCHED; byte certified_n; /* the certificate, and the position that it covers */
bool pg_wrong;
byte tx[WRITERS];               /* each application session's transaction: */
#define IDLE 0                  /* none */
#define BEGUN 1                 /* begun, nothing written */
#define BEGUN_OLD 2             /* the same, REPEATABLE READ: goes on seeing the fence open */
#define WRITTEN 3               /* has written, and holds the shared lock */
#define WRITTEN_LATE 4          /* the same, past a closed fence that it could not see */
#define NO_SHARED_LOCK (tx[0] < WRITTEN && tx[1] < WRITTEN && orphan == 0)
byte orphan;                    /* request + 1 whose COMMIT outlived its client */

/* -------------------------------------------------------- PgBouncer and the connection */
bool alias_file = SWITCHED, alias = SWITCHED, paused, pooler_restarted;
mtype conn = (SWITCHED -> POSTGRES : SQLITE);

/* --------------------------------------------------------------------- the processes */
byte lock = NOBODY;             /* the file lock; the kernel releases it when its holder dies */
bool kill_job, kill_sync;
bool frozen;                    /* the job stands still (SIGSTOP), with all that it holds */
byte crashes, operations, restarts, faults;
bool job_over;
byte finished;                  /* writers done */
bool late_hold;                 /* a PAUSE of the dead has come since */
mtype ghost = QUIET; byte ghost_n, ghost_rows, ghost_reg;
#define FORGET_GHOST ghost = QUIET; ghost_n = 0; ghost_rows = 0; ghost_reg = 0

byte truth_rows, truth_reg;

#ifdef FORGET
byte sq_token = SWITCHED;       /* what the source relies on that the target has committed */
byte token = SWITCHED, previous, tokens = SWITCHED;
bool stopped;                   /* it lacks that: an operator has to choose */
bool deciding;                  /* only the source is written to */
bool forked; byte fork_rows, fork_reg;
byte forgets;
bool kept;                      /* the standby's state */
byte sb_rows, sb_reg, sb_applied, sb_generation, sb_queue, sb_n, sb_token, sb_previous;
bool sb_fenced, sb_certified, sb_wrong;
#define HOLDS (sq_token == 0 || sq_token == token || sq_token == previous)
#define STOPPED stopped
bool gone;                      /* with the server goes what was sent to it */
#define SENT(what) (!gone || what == HOLD)
#else
#define SENT(what) true
#define STOPPED false
#endif

#ifdef LEASE
bool lease, over;               /* lease.json is there; its end has come */
bool held;                      /* its PAUSE is in force */
bool marked;                    /* a rollback's own PAUSE is out, or may be */
byte leases;
#define LEASED lease
#define OTHERS (lease || !marked)       /* whose PAUSE it is, where there is one */
#else
#define LEASED false
#define OTHERS false
#endif
#ifdef ALTER
bool pg_shape, sq_shape;        /* the column is there */
bool recorded;                  /* and on the target's record of what the way back carries */
byte pg_new, sq_new, truth_new; /* the rows that have a value in it */
#define FORGET_SHAPE shape = false; news = 0
#else
#define FORGET_SHAPE skip
#endif

#ifdef OMIT_FLUSH               /* what a crash of PostgreSQL would leave */
byte kept_rows, kept_reg, kept_applied;
#endif
#ifdef POWER                    /* the application runs with synchronous = NORMAL: commits reach the disk later */
byte disk_n, disk_rows, disk_reg;
bool disk_closed = SWITCHED;
#define FLUSH_SQLITE disk_n = log_n; disk_rows = sq_rows; disk_reg = sq_reg; disk_closed = closed
#else
#define FLUSH_SQLITE skip
#endif

/* --------------------------------------------------------------------- applications */

inline commit_sqlite(r) {
	if
	:: sq_rows & BIT(r) -> skip     /* the request id is there: nothing to do, but to answer */
	:: else ->
		sq_rows = sq_rows | BIT(r); sq_reg = r + 1;
		if
		:: CAPTURES ->
#ifdef REPLACE
			last_token++; log_token[log_n] = last_token;
#endif
			log_row[log_n] = r; log_n++
		:: else
		fi;
		truth_rows = truth_rows | BIT(r); truth_reg = r + 1
	fi
}

inline commit_postgres(r) {
	if
	:: pg_rows & BIT(r) -> skip
	:: else ->
		pg_rows = pg_rows | BIT(r); pg_reg = r + 1;
		queue = queue | BIT(r);
		truth_rows = truth_rows | BIT(r); truth_reg = r + 1;
#ifdef ALTER
		if
		:: pg_shape -> pg_new = pg_new | BIT(r); truth_new = truth_new | BIT(r)
		:: else
		fi;
#endif
#ifdef OMIT_FLUSH
		/* the application's own commits are synchronous, and flush all that was before them */
		kept_rows = pg_rows; kept_reg = pg_reg; kept_applied = applied
#endif
	fi
}

#define ALIVE provided (!kill_job && !kill_sync)      /* a death is one step */

/* The answer to a request, or its loss: then the client asks again with the same id. */
#ifdef LOSSES
#define ANSWER if :: goto answered :: goto again fi
#else
#define ANSWER goto answered
#endif

active [WRITERS] proctype writer() ALIVE {
	byte r = _pid * PER;

again:	if
	:: conn == SQLITE -> goto on_sqlite
	:: conn == POSTGRES -> goto on_postgres
	fi;

on_sqlite:      /* the connection was read; from here on it may be an old one */
	if
	:: atomic { sq_lock == NOBODY && !closed -> commit_sqlite(r); ANSWER }
	:: atomic { sq_lock == NOBODY && closed ->      /* "moved to PostgreSQL" */
		(conn != SQLITE || !closed || STOPPED); goto again }
	fi;                                             /* else: waits in its busy timeout */

on_postgres:
	if
	:: atomic { alias && !paused ->
		if                                      /* the isolation level is its own choice */
		:: tx[_pid] = BEGUN
		:: !fenced -> tx[_pid] = BEGUN_OLD
		fi }
	:: atomic { !alias ->                           /* no such database */
		(conn != POSTGRES || alias || STOPPED); goto again }
	fi;                                             /* else: held by PAUSE */
	if
	:: d_step { tx[_pid] == BEGUN_OLD || (tx[_pid] == BEGUN && !fenced) ->
		tx[_pid] = (fenced -> WRITTEN_LATE : WRITTEN) }
	:: atomic { tx[_pid] == BEGUN && fenced ->
		assert(pooler_restarted || 0 == 6);
		tx[_pid] = IDLE;
		(conn != POSTGRES || !fenced || STOPPED); goto again }
	:: atomic { tx[_pid] == IDLE -> goto again }    /* the session was ended */
	fi;
	if
	:: atomic { tx[_pid] >= WRITTEN && orphan != r + 1 ->
		commit_postgres(r); tx[_pid] = IDLE; ANSWER }
#ifdef LOSSES
	:: atomic { tx[_pid] >= WRITTEN && orphan == 0 -> tx[_pid] = IDLE; orphan = r + 1; goto again }
#endif
	:: atomic { tx[_pid] == IDLE -> goto again }
	fi;

answered:	skip;
	d_step {
#if !defined(POWER) && !defined(FORGET) && !defined(REPLACE)   /* what a side lost by itself */
		assert(truth_rows & BIT(r));
#endif
		r++
	};
	if
	:: r < (_pid + 1) * PER -> goto again
	:: else -> finished++
	fi
}

/* PostgreSQL finishing what the dead have sent: at any time, or never. */
active proctype server() ALIVE {
end:	do
	:: d_step { orphan != 0 -> commit_postgres(orphan - 1); orphan = 0 }
	:: orphan != 0 -> orphan = 0
	:: d_step { ghost == APPLY ->
		pg_rows = pg_rows | ghost_rows; pg_reg = ghost_reg; applied = ghost_n;
		NOTE_GHOST;
		FORGET_GHOST }
	:: d_step { ghost == OPEN -> fenced = false; FORGET_GHOST }
	:: d_step { ghost == SHUT && NO_SHARED_LOCK -> fenced = true; FORGET_GHOST }
	:: d_step { ghost == HOLD -> paused = true; late_hold = true; FORGET_GHOST }
	:: d_step { ghost == DELETE -> queue = queue & ~ghost_rows; FORGET_GHOST }
	:: d_step { ghost != QUIET -> FORGET_GHOST }
	od
}

/* ---------------------------------------------------------- what job and sync are made of */

/* Announces the statement that goes out next: if its sender dies now, it may be run later. */
#define SENDING(what) intent = what

/* The lock, then the sessions of whoever held it before: ended, and waited for. */
#ifdef REPLACE
#define OPEN_FILE opened = file
#else
#define OPEN_FILE skip
#endif
inline take_over(me) {
	atomic { lock == NOBODY -> lock = me; OPEN_FILE };
#ifndef OMIT_TAKEOVER
	d_step {                                /* PgBouncer's console has no sessions to end */
		if
		:: ghost != HOLD -> FORGET_GHOST
		:: else
		fi
	};
#endif
	skip
}

/* The target holds a copy that this capture continues. */
#ifdef OMIT_GENERATION
#define COPIED (pg_generation != 0)
#else
#define COPIED (pg_generation != 0 && pg_generation == generation)
#endif

#define FORWARD (!fenced && alias_file && alias && conn == POSTGRES)
#define BACK (conn == SQLITE && !alias_file && !alias)
#define RIGHT_FORWARD (FORWARD && (!paused || OTHERS))
#define RIGHT_BACK (BACK && !paused)

/* All that follows from `closed`. Whoever gets the lock does this first: it completes what the dead
 * left after a decision, and undoes what they left before one. */
inline follow_decision() {
	late_hold = false;
#ifdef LEASE
	/* an alias that is there and held by somebody stays so, whatever else is left to do */
	leaves = alias && paused && (lease || (conn == POSTGRES && !marked));
#ifdef OMIT_LEASE_LOOK
	leaves = false;
#endif
#endif
#ifdef FORGET
	prove_memory();
#endif
	if
#if defined(LEASE) && defined(OMIT_LEASE_LOOK)
	:: closed && FORWARD && paused -> paused = false
#endif
#ifdef FORGET
	:: closed && stopped -> paused = false  /* nothing is opened; what serves goes on */
#endif
	:: closed && !STOPPED && !RIGHT_FORWARD ->
#ifdef EARLY_ALIAS
		alias_file = true; alias = alias_file; paused = false;
#endif
#ifdef EARLY_CONNECTION
		conn = POSTGRES;
#endif
		SENDING(OPEN);
#ifndef OMIT_OPEN_FENCE
		d_step { fenced = false; intent = QUIET };
#else
		intent = QUIET;
#endif
#ifndef OMIT_ALIAS
		alias_file = true;
#endif
#ifndef OMIT_RELOAD
		alias = alias_file;
#endif
#ifndef OMIT_RESUME
#ifdef LEASE
		if
		:: leaves
		:: else -> paused = false
		fi;
#else
		paused = false;
#endif
#endif
#ifndef OMIT_CONNECTION
		conn = POSTGRES
#endif
	:: !closed && !RIGHT_BACK ->
#ifdef EARLY_ALIAS_REMOVAL
		alias_file = false; alias = alias_file;
#endif
#ifndef OMIT_CONNECTION_BACK
		conn = SQLITE;
#endif
#ifndef OMIT_ALIAS_REMOVAL
		alias_file = false;
#endif
#ifndef OMIT_RELOAD_BACK
		alias = alias_file;
#endif
#ifndef OMIT_RESUME_BACK
		paused = false
#endif
	:: else
	fi;
	/* It has done what it is for; or else it would be tried again for ever. */
	assert(((closed -> FORWARD : BACK) && (!paused || late_hold || OTHERS)) || STOPPED || 0 == 4)
#ifdef LEASE
	;
	d_step {
		if
		:: !paused && ghost != HOLD -> marked = false
		:: else
		fi
	}
#endif
}

#ifdef LEASE
/* migration-job hold: the lease, with its end, before the PAUSE. */
inline hold() {
#ifdef EARLY_PAUSE
	paused = true;
	d_step { lease = true; over = false; held = true }
#else
	d_step { lease = true; over = false };
	d_step { paused = true; held = true }
#endif
}

inline end_lease() { d_step { held = false; paused = false; lease = false; over = false } }
#endif

/* Log to PostgreSQL: position and states read in one transaction, written in one transaction. */
inline read_log() {
#ifdef EARLY_STATES
	reg = sq_reg;                           /* states first, the log after them */
#endif
#ifdef EARLY_SYNC_WAL
	d_step { FLUSH_SQLITE };
#endif
	d_step {
		n = applied;
		rows = 0;
		do
		:: n < log_n -> rows = rows | BIT(log_row[n]); n++
		:: else -> break
		od;
		n = log_n; READ_TOKEN;
#ifndef EARLY_STATES
		reg = sq_reg
#endif
	}
}

inline apply_log() {
	if
	:: rows != 0 ->
		d_step {
#if !defined(OMIT_SYNC_WAL) && !defined(EARLY_SYNC_WAL)
			/* what was read is on SQLite's disk before it is on PostgreSQL's */
			FLUSH_SQLITE;
#endif
			SENDING(APPLY)
		};
#ifdef OMIT_ONE_TRANSACTION
		applied = n;                    /* the position, and only then the states */
#endif
		atomic {
			pg_rows = pg_rows | rows; pg_reg = reg; applied = n; NOTE_TOKEN;
			intent = QUIET; n = 0; rows = 0; reg = 0;
			if
			:: faults < FAULTS -> faults++; pg_wrong = true
			:: true
			fi
		}
	:: else -> d_step { intent = QUIET; n = 0; rows = 0; reg = 0 }
	fi
}

#ifdef FORGET
inline new_token() { d_step { tokens++; previous = sq_token; token = tokens } }

/* Each row that came back is in the log too, as if the triggers had fired. */
inline log_keys(set) {
	do
	:: set != 0 ->
		if
		:: set & 1 -> log_row[log_n] = 0; set = set & ~1
		:: else ->
			if
			:: set & 2 -> log_row[log_n] = 1; set = set & ~2
			:: else ->
				if
				:: set & 4 -> log_row[log_n] = 2; set = set & ~4
				:: else -> log_row[log_n] = 3; set = 0
				fi
			fi
		fi;
		log_n++
	:: else -> break
	od
}

/* Before anything opens the target: it holds what the source relies on; or it is brought up again
 * from the source's log, where it cannot have taken a write since; or it all stops. */
inline prove_memory() {
	stopped = false;
#ifndef OMIT_PROOF
	if
	:: closed && !HOLDS ->
		if
#ifdef OMIT_UNTOUCHED
		:: COPIED ->
#else
		:: COPIED && fenced ->
#endif
			read_log(); apply_log();
			d_step {
				certified = true; certified_n = log_n;
				tokens++; token = tokens; previous = 0
			};
			d_step { sq_token = token; forked = false }
		:: else -> stopped = true
		fi
	:: !closed && !HOLDS -> stopped = true  /* a new copy is the operator's to order */
	:: else
	fi
#else
	skip
#endif
}
#endif

/* Queue to SQLite: queue and states read in one snapshot; the queue's rows deleted after the commit. */
inline read_queue() {
#ifdef EARLY_TOKEN
	new_token();
#endif
#ifdef EARLY_QUEUE_STATES
	reg = pg_reg; rows = pg_rows;
#endif
	d_step {
		n = queue;
#ifndef EARLY_QUEUE_STATES
		reg = pg_reg; rows = pg_rows;
#endif
		rows = rows & n;
#ifdef ALTER
		shape = pg_shape;
		news = pg_new & n
#endif
	};
#ifdef ALTER
#ifndef OMIT_SCHEMA
	if
	:: shape && !recorded ->
#ifndef EARLY_RECORD
		sq_shape = true;                /* the column on SQLite, and then on record */
#endif
		d_step {
			recorded = true;
#ifndef OMIT_AGAIN
			queue = queue | pg_rows /* every row once more, from the next round on */
#endif
		};
#ifdef EARLY_RECORD
		sq_shape = true
#endif
	:: else
	fi;
#endif
#endif
	skip
}

inline apply_queue() {
#ifdef FORGET
	/* The token is written after all that was read. */
	if
	:: n != 0 ->
		if
		:: !HOLDS -> stopped = true; n = 0; rows = 0; reg = 0
		:: else
#ifndef OMIT_BATCH_TOKEN
#ifndef EARLY_TOKEN
			-> new_token()
#endif
#endif
		fi
	:: else
	fi;
#endif
	if
	:: n != 0 ->
#ifdef EARLY_DELETE
		queue = queue & ~n;
#endif
		atomic {
#ifdef FORGET
			took = n; followed = 0;
#ifndef OMIT_LOG_BACK
			log_keys(took);
#endif
#ifndef OMIT_BATCH_TOKEN
			sq_token = token;
#endif
			followed = log_n;
#endif
			sq_rows = sq_rows | rows; sq_reg = reg; FLUSH_SQLITE;
#ifdef ALTER
			sq_new = (sq_new & ~n) | (shape && sq_shape -> news : 0); FORGET_SHAPE;
#endif
			rows = 0; reg = 0; SENDING(DELETE);
			if
			:: faults < FAULTS -> faults++; sq_wrong = true
			:: true
			fi
		};
#ifdef OMIT_SEEN_ONLY
		queue = 0;                      /* all rows, not those that were read */
#endif
		d_step {
			queue = queue & ~n; intent = QUIET; n = 0;
#ifdef FORGET
			applied = followed; followed = 0; took = 0
#endif
		}
	:: else -> d_step { rows = 0; reg = 0 }
	fi
}

inline prepare() {
#ifdef EARLY_SNAPSHOT
	if
	:: COPIED
	:: else -> d_step { rows = sq_rows; reg = sq_reg }
	fi;
#endif
	if
	:: capture
	:: else ->
		d_step { sq_lock == NOBODY -> capture = true; generation++; log_n = 0; FLUSH_SQLITE }
	fi;
	if
	:: COPIED
	:: else ->
#ifdef EARLY_SNAPSHOT
		n = log_n;
#else
		d_step { rows = sq_rows; reg = sq_reg; n = log_n; READ_TOKEN; FLUSH_SQLITE };
#endif
		d_step {
			pg_rows = rows; pg_reg = reg; applied = n; pg_generation = generation;
			NOTE_TOKEN;
			pg_wrong = false; n = 0; rows = 0; reg = 0;
#ifdef OMIT_FLUSH
			kept_rows = pg_rows; kept_reg = pg_reg; kept_applied = applied
#endif
		}
	fi
}

/* Both sides in full, in one state of the source up to which the target was brought. */
inline compare() {
#ifdef LOSE
	if
	:: cookie != proven ->
		read_log(); apply_log();
		d_step {
			if
#ifdef OMIT_COMPARE
			:: true -> proven = cookie
#else
			:: applied == log_n && sq_rows == pg_rows && sq_reg == pg_reg -> proven = cookie
#endif
			:: else
			fi
		}
	:: else
	fi
#else
	skip
#endif
}

inline switch(me) {
	if
	:: !SAME -> goto refused                                /* put back to an older state */
	:: else
	fi;
	compare();                                              /* 0: nothing is held */
#ifdef REPLACE
#ifdef OMIT_FILE
	if
	:: opened != file -> fenced = false                     /* decided in a file of no path */
	:: else
	fi;
#endif
#endif
#ifndef OMIT_HOLD_WRITERS
	atomic { sq_lock == NOBODY -> sq_lock = me };           /* 1: BEGIN IMMEDIATE */
#endif
#ifdef REPLACE
#ifndef OMIT_FILE
	if
	:: opened != file -> sq_lock = NOBODY; goto refused
	:: else
	fi;
#endif
	if
	:: !SAME -> sq_lock = NOBODY; goto refused
	:: else
	fi;
#endif
#ifdef LOSE
#ifndef OMIT_LOOK
	if
	:: !whole -> sq_lock = NOBODY; goto refused
	:: else
	fi;
#endif
#ifndef OMIT_COOKIE
	if
	:: cookie != proven -> sq_lock = NOBODY; goto refused
	:: else
	fi;
#endif
#endif
#ifndef OMIT_DRAIN
	read_log(); apply_log();                                /* 2: drain, verify, certify */
#endif
#ifdef STALE_CERTIFICATE
	if
	:: certified -> goto certified_already
	:: else
	fi;
#endif
	if
#ifndef OMIT_VERIFY
	:: pg_wrong ->         /* only what changed is looked at: it finds no row that was never logged */
		sq_lock = NOBODY;                               /* ROLLBACK: SQLite goes on serving */
		goto refused
#endif
	:: else
	fi;
#ifdef FORGET
	if
	:: !HOLDS -> sq_lock = NOBODY; stopped = true; goto refused
	:: else
	fi;
#endif
	d_step {
		certified = true; certified_n = log_n;
#ifdef FORGET
		tokens++; previous = sq_token; token = tokens; deciding = true;
#endif
#ifdef OMIT_CERTIFICATE
		certified = false;
#endif
	};
#ifdef STALE_CERTIFICATE
certified_already: skip;
#endif
#ifdef OMIT_FLUSH
	skip;
#endif
	d_step {                                                /* 3: the decision */
#ifndef OMIT_DECISION
		closed = true;
#endif
#ifndef OMIT_DURABLE_DECISION
		FLUSH_SQLITE;
#endif
		sq_lock = NOBODY;
#ifdef FORGET
		sq_token = tokens; deciding = false
#else
		assert((certified && certified_n == log_n) || 0 == 3)
#endif
	};
	follow_decision();                                      /* 4 */
	assert(closed || 0 == 4)
}

inline rollback(me) {
#ifdef LEASE
	marked = true;
#endif
	SENDING(HOLD);
#ifndef OMIT_PAUSE
	d_step { paused = true; intent = QUIET };
	(!paused || (tx[0] == IDLE && tx[1] == IDLE));
#endif
	SENDING(SHUT);
#ifndef OMIT_SHUT_FENCE
#ifdef OMIT_EXCLUSIVE
	d_step { fenced = true; intent = QUIET };
#else
	d_step { NO_SHARED_LOCK -> fenced = true; intent = QUIET };
#endif
#endif
	intent = QUIET;
#ifndef OMIT_END_SESSIONS
	atomic {
		/* none that has written is cut off */
		assert((tx[0] != WRITTEN && tx[1] != WRITTEN) || 0 == 6);
		tx[0] = IDLE; tx[1] = IDLE; orphan = 0
	};
#endif
#ifndef OMIT_DRAIN_BACK
	read_queue(); apply_queue();
#ifdef ALTER
	do                                      /* until there is nothing left */
	:: queue != 0 -> read_queue(); apply_queue()
	:: else -> break
	od;
#endif
#endif
	if
#ifndef OMIT_VERIFY_BACK
	:: sq_wrong ->
		follow_decision();                              /* PostgreSQL goes on serving */
		goto refused
#endif
	:: else
	fi;
#ifdef FORGET
	if
	:: stopped -> goto refused
	:: else -> d_step { tokens++; previous = sq_token; token = tokens; deciding = true }
	fi;
#endif
	d_step {                                                /* the decision */
#ifdef FORGET
		sq_token = tokens; deciding = false;
#endif
#ifndef OMIT_DECISION_BACK
		closed = false;
#endif
		certified = false;
		FLUSH_SQLITE
	};
	follow_decision();
	assert(!closed || 0 == 4)
}

/* Death: the kernel drops the lock, SQLite rolls back, and what was sent may be run later. */
inline die(me) {
	d_step {
		if
		:: lock == me -> lock = NOBODY
		:: else
		fi;
		if
		:: sq_lock == me -> sq_lock = NOBODY
		:: else
		fi;
		if
		:: intent != QUIET && ghost == QUIET && SENT(intent) ->
			ghost = intent;
			if
			:: intent == APPLY ->
				ghost_n = n; ghost_rows = rows; ghost_reg = reg; GHOST_TOKEN
			:: intent == DELETE -> ghost_rows = n
			:: else
			fi
		:: else
		fi;
		intent = QUIET; n = 0; rows = 0; reg = 0; FORGET_SHAPE;
#ifdef FORGET
		took = 0; followed = 0; deciding = false; gone = false
#endif
	}
}

#ifdef REMOVAL
#define REMOVE_CAPTURE :: atomic { !closed && capture && sq_lock == NOBODY -> \
	capture = false; certified = false; log_n = 0; FLUSH_SQLITE }
#else
#define REMOVE_CAPTURE
#endif

active proctype job() provided (!kill_sync && !frozen) {
	byte n, rows, reg;
#ifdef ALTER
	bool shape;
	byte news;
#endif
#ifdef LEASE
	bool leaves;
#endif
#ifdef REPLACE
	byte opened, token;
#endif
#ifdef FORGET
	byte took, followed;
#endif
	mtype intent = QUIET;

start:	do
	:: operations < OPERATIONS ->
		operations++;
		{
			take_over(JOB);
			follow_decision();
			if
			:: !closed && !STOPPED -> prepare()
			:: !closed && capture && COPIED && !STOPPED -> switch(JOB)
			:: closed && !STOPPED && !LEASED -> rollback(JOB)
#ifdef LEASE
			:: closed && !lease && leases < LEASE && alias -> leases++; hold()
			:: lease -> end_lease()         /* migration-job resume */
			:: lease                        /* a rollback is refused meanwhile */
#endif
			:: STOPPED
			REMOVE_CAPTURE
			fi;
refused:		skip;
			d_step { lock = NOBODY; n = 0; rows = 0; reg = 0; intent = QUIET }
		} unless {
			kill_job -> die(JOB); kill_job = false; goto start
		}
	:: break                                /* the operator may also leave it at that */
	od;
	job_over = true
}

#if defined(LEASE) && !defined(OMIT_LEASE_END)
#define LEASE_OVER (lease && over)
#else
#define LEASE_OVER false
#endif
#define BEHIND (capture && COPIED && SAME && applied < log_n)
#define SYNC_HAS_WORK (STOPPED -> (closed -> paused : !RIGHT_BACK) : SYNC_MAY)
#define SYNC_MAY (LEASE_OVER || (closed && (!RIGHT_FORWARD || queue != 0)) || \
	(!closed && (!RIGHT_BACK || BEHIND)))

active proctype sync() provided (!kill_job) {
	byte n, rows, reg;
#ifdef ALTER
	bool shape;
	byte news;
#endif
#ifdef LEASE
	bool leaves;
#endif
#ifdef REPLACE
	byte opened, token;
#endif
#ifdef FORGET
	byte took, followed;
#endif
	mtype intent = QUIET;

end:	do
#ifndef OMIT_SYNC
	:: SYNC_HAS_WORK && lock == NOBODY ->
		{
			take_over(SYNC);
#ifdef LEASE
#ifndef OMIT_LEASE_END
			if
			:: lease && over -> end_lease()
			:: else
			fi;
#endif
#endif
			follow_decision();
			if
			:: closed && !STOPPED -> read_queue(); apply_queue()
			:: !closed && BEHIND && !STOPPED -> read_log(); apply_log()
			:: else
			fi;
			d_step { lock = NOBODY; n = 0; rows = 0; reg = 0; intent = QUIET }
		} unless {
			kill_sync -> die(SYNC); kill_sync = false; goto end
		}
#endif
	:: false
	od
}

/* ------------------------------------------------------------------ crashes and rules */

active proctype misfortune() ALIVE {
end:	do
	:: atomic { crashes < CRASHES && lock == JOB -> crashes++; kill_job = true }
	:: atomic { crashes < CRASHES && lock == SYNC -> crashes++; kill_sync = true }
#ifdef FREEZE
	:: atomic { crashes < CRASHES && lock == JOB && !frozen -> crashes++; frozen = true }
#ifndef OMIT_WATCHDOG
	:: frozen -> frozen = false                     /* it goes on by itself, late */
	:: atomic { frozen -> frozen = false; kill_job = true }
#endif
#endif
#ifdef LEASE
	:: d_step { lease && !over -> over = true }     /* time passes */
#endif
#ifdef ALTER
	:: d_step { !pg_shape && closed && !fenced ->
		pg_shape = true; pg_new = pg_rows; truth_new = pg_rows }
#endif
#ifdef LOSE
	:: d_step { lost < LOSE && capture && whole && !closed && sq_lock == NOBODY ->
		lost++; whole = false; cookie++ }
	:: d_step { !whole && !closed && sq_lock == NOBODY -> whole = true; cookie++ }
#endif
#ifdef REPLACE
	:: d_step { !kept && capture && !closed && sq_lock == NOBODY ->
		kept = true; kept_sq_rows = sq_rows; kept_sq_reg = sq_reg; kept_n = log_n;
		kept_log[0] = log_row[0]; kept_log[1] = log_row[1];
		kept_token[0] = log_token[0]; kept_token[1] = log_token[1] }
	:: d_step { kept && !replaced && !closed && sq_lock == NOBODY ->
		replaced = true; file++;
		sq_rows = kept_sq_rows; sq_reg = kept_sq_reg; log_n = kept_n;
		log_row[0] = kept_log[0]; log_row[1] = kept_log[1];
		log_token[0] = kept_token[0]; log_token[1] = kept_token[1];
		truth_rows = sq_rows; truth_reg = sq_reg }
#endif
	:: atomic { restarts < RESTARTS ->              /* PgBouncer: reads its file, forgets PAUSE */
		restarts++; pooler_restarted = true; paused = false; alias = alias_file;
#ifdef LEASE
		held = false;
#endif
		tx[0] = IDLE; tx[1] = IDLE }
	:: atomic { restarts < RESTARTS ->              /* PostgreSQL: what was committed stays */
		restarts++; tx[0] = IDLE; tx[1] = IDLE; orphan = 0;
		if
		:: ghost != HOLD -> FORGET_GHOST
		:: else
		fi
#ifdef OMIT_FLUSH
		; pg_rows = kept_rows; pg_reg = kept_reg; applied = kept_applied
#endif
		}
#ifdef FORGET
	:: d_step { !kept && forgets < 1 ->     /* the standby is cut off here */
		kept = true;
		sb_rows = pg_rows; sb_reg = pg_reg; sb_applied = applied;
		sb_generation = pg_generation; sb_queue = queue; sb_n = certified_n;
		sb_token = token; sb_previous = previous;
		sb_fenced = fenced; sb_certified = certified; sb_wrong = pg_wrong }
	:: atomic { kept && ((closed && !deciding) || sb_fenced) ->    /* and promoted here */
		kept = false; forgets++; pooler_restarted = true; /* a request may be turned away */
		pg_rows = sb_rows; pg_reg = sb_reg; applied = sb_applied;
		pg_generation = sb_generation; queue = sb_queue; certified_n = sb_n;
		token = sb_token; previous = sb_previous;
		fenced = sb_fenced; certified = sb_certified; pg_wrong = sb_wrong;
		sb_rows = 0; sb_reg = 0; sb_applied = 0; sb_generation = 0; sb_queue = 0; sb_n = 0;
		sb_token = 0; sb_previous = 0; sb_fenced = false; sb_certified = false; sb_wrong = false;
		tx[0] = IDLE; tx[1] = IDLE; orphan = 0;
		if
		:: ghost != HOLD -> FORGET_GHOST
		:: else
		fi;
		if                              /* what is left of what was acknowledged */
		:: !closed || (sq_rows & ~pg_rows) != 0 -> truth_rows = sq_rows; truth_reg = sq_reg
		:: else -> truth_rows = pg_rows; truth_reg = pg_reg
		fi;
		if
		:: !fenced && (sq_rows & ~pg_rows) != 0 ->
			forked = true; fork_rows = sq_rows; fork_reg = sq_reg
		:: else
		fi;
		if                              /* the sessions of whoever was at work are lost */
		:: lock == JOB && !deciding -> gone = true; kill_job = true
		:: lock == SYNC -> gone = true; kill_sync = true
		:: else
		fi }
#endif
#ifdef POWER
	:: atomic { restarts < RESTARTS && lock == NOBODY && ghost == QUIET -> /* the whole machine */
		restarts++; tx[0] = IDLE; tx[1] = IDLE; orphan = 0;
		paused = false; alias = alias_file; pooler_restarted = true;
		closed = disk_closed; log_n = disk_n; sq_rows = disk_rows; sq_reg = disk_reg;
		if      /* what SQLite itself lost, by the application's own setting, is not ours to keep */
		:: !closed -> truth_rows = sq_rows; truth_reg = sq_reg
		:: else
		fi }
#endif
	od
}

active proctype rules() ALIVE {
end:	do
	:: !closed && !fenced -> assert(0 == 1)
	:: !closed && (sq_rows != truth_rows || sq_reg != truth_reg) -> assert(0 == 2)
#ifdef FORGET
	:: forked && (sq_rows != fork_rows || sq_reg != fork_reg) -> assert(0 == 2)
	:: !forked && !fenced && (pg_rows != truth_rows || pg_reg != truth_reg) -> assert(0 == 2)
#else
	:: !fenced && (pg_rows != truth_rows || pg_reg != truth_reg) -> assert(0 == 2)
#endif
#ifdef ALTER
	:: !closed && sq_new != truth_new -> assert(0 == 2)
	:: !fenced && pg_new != truth_new -> assert(0 == 2)
#endif
#ifdef LEASE
	:: held && !paused -> assert(0 == 7)
#endif
	:: !closed && sq_wrong -> assert(0 == 5)
	:: !fenced && pg_wrong -> assert(0 == 5)
	:: conn == POSTGRES && !alias -> assert(0 == 6)
	:: timeout -> goto rest
	od;
rest:	assert((job_over && finished == WRITERS && lock == NOBODY && sq_lock == NOBODY
		&& (closed -> RIGHT_FORWARD : RIGHT_BACK)) || STOPPED || 0 == 4)
}
