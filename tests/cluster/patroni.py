"""Three members under Patroni, with etcd, haproxy and PgBouncer, on the loopback: to be switched
over, killed and cut off from one another.

Each member's ``connect_address``, by which its standbys reach it, is a small forwarder of this
process: to cut replication is to close it. Clients go to haproxy, to the members themselves, or to
a PgBouncer that stands before haproxy.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.conninfo import make_conninfo

from migration_job.binaries import DEFAULT_MAJOR, postgres_programs
from migration_job.embedded import _children, _Server, _signal, free_port

PROGRAMS = ("patroni", "etcd", "haproxy", "pgbouncer")
MEMBERS = ("one", "two", "three")
BY_HAPROXY = "haproxy"
POOLED_HAPROXY = "PgBouncer, haproxy"
"""How the application gets to the leader."""

TTL_SECONDS = 12
"""How long a leader that is lost stays the leader: a failover takes some seconds longer."""

WAIT_SECONDS = 90.0

# Ends what a test that was killed has left: its standard input is a pipe of ours.
_WATCH = """
cat >/dev/null
kill -KILL "$1" 2>/dev/null
pid=$(head -n 1 "$2/data/postmaster.pid" 2>/dev/null) && kill -INT "$pid" 2>/dev/null
exit 0
"""


def lacking() -> list[str]:
    """The programs that this machine does not have."""
    return [name for name in PROGRAMS if find(name) is None]


def find(name: str) -> str | None:
    """A program's path, also outside an ordinary user's PATH."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def until(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait for a condition, whose look may fail meanwhile. Raises TimeoutError, saying for what."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(psycopg.Error, OSError, ValueError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.1)


class Forwarder:
    """A port that leads to another, until it is closed."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._pairs: list[socket.socket] = []
        self._closed = False
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drop all that is under way, and let nothing through."""
        with self._lock:
            self._closed = True
            for end in self._pairs:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
            self._pairs.clear()

    def mend(self) -> None:
        """Let everything through again."""
        self._closed = False

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            with self._lock, contextlib.suppress(OSError):
                if self._closed:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._to), timeout=5)
                server.settimeout(None)
                self._pairs += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=(one, other), daemon=True).start()
                continue
            client.close()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while content := one.recv(65536):
                if self._closed:
                    break
                other.sendall(content)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """For good."""
        self.cut()
        self._listener.close()


class _Program(_Server):
    """One program, run as another user where this one is root."""

    def run(self, command: list[str]) -> None:
        """Start it, and see to its end."""
        self._process = self._spawn(command)
        watch = ["/bin/sh", "-c", _WATCH, "watch", str(self._process.pid), str(self.directory)]
        self._unwatch()
        self._watcher = self._spawn(watch, stdin=-1, log=False)

    def write(self, name: str, content: str) -> Path:
        """A file of the program's."""
        path = self.directory / name
        path.write_text(content)
        self._give(path)
        return path

    def end(self) -> None:
        """SIGKILL, and its end waited for."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """The end of it and of its directory."""
        self.end()
        self._discard()


class Member(_Program):
    """One PostgreSQL and its Patroni."""

    def __init__(self, name: str, etcd: int, cluster: PatroniCluster) -> None:
        super().__init__(None, f"patroni-{name}-")
        self.name = name
        self.port, self.api = free_port(), free_port()
        self.forwarder = Forwarder(self.port)
        self._file = self.write("patroni.yml", json.dumps(self._settings(etcd, cluster), indent=1))
        self._file.chmod(0o600)

    def start(self) -> None:
        """Run Patroni, which sees to PostgreSQL."""
        if not self.running:
            self.run([str(find("patroni")), str(self._file)])

    def kill(self) -> None:
        """SIGKILL Patroni, PostgreSQL and every child of it, as a power cut would."""
        self.end()
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.directory / "data" / "postmaster.pid").read_text().split()[0])
            os.kill(pid, signal.SIGSTOP)
            for child in _children(pid):
                _signal(child, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """The end of it and of its directory."""
        self.kill()
        self.forwarder.close()
        super().close()

    def _settings(self, etcd: int, cluster: PatroniCluster) -> dict[str, Any]:
        here = "127.0.0.1"
        user = {"username": "postgres", "password": cluster.password}
        parameters = {
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 60,
            "shared_buffers": "32MB",
            "wal_keep_size": "256MB",
            "wal_log_hints": "on",
            "hot_standby": "on",
            "max_wal_senders": 10,
        }
        return {
            "scope": "job",
            "name": self.name,
            "restapi": {"listen": f"{here}:{self.api}", "connect_address": f"{here}:{self.api}"},
            "etcd3": {"host": f"{here}:{etcd}"},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_SECONDS,
                    "loop_wait": 1,
                    "retry_timeout": 3,
                    "maximum_lag_on_failover": 1 << 30,
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": False, "parameters": parameters},
                },
                "initdb": [
                    {"encoding": "UTF8"},
                    {"locale": "C.UTF-8"},
                    {"lc-collate": "C"},
                    "no-sync",
                ],
                "pg_hba": [f"host {kind} all {here}/32 scram-sha-256" for kind in _HBA],
            },
            "postgresql": {
                "listen": f"{here}:{self.port}",
                "connect_address": f"{here}:{self.forwarder.port}",
                "data_dir": str(self.directory / "data"),
                "bin_dir": str(postgres_programs(cluster.major)),
                "pgpass": str(self.directory / "pgpass"),
                "use_unix_socket": False,
                "remove_data_directory_on_diverged_timelines": True,
                "remove_data_directory_on_rewind_failure": True,
                "authentication": {"superuser": user, "replication": user, "rewind": user},
                "parameters": {"unix_socket_directories": str(self.directory)},
                "basebackup": [{"checkpoint": "fast"}],
            },
            "watchdog": {"mode": "off"},
        }


_HBA = ("all", "replication")


class PatroniCluster:
    """The whole; a context manager."""

    def __init__(self, major: int = DEFAULT_MAJOR) -> None:
        self.major = major
        self.password = secrets.token_urlsafe(16)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            etcd = _Program(None, "etcd-")
            self._stack.callback(etcd.close)
            port, peers = free_port(), free_port()
            here = f"http://127.0.0.1:{port}"
            command = [str(find("etcd")), "--data-dir", str(etcd.directory / "data")]
            command += ["--listen-client-urls", here, "--advertise-client-urls", here]
            command += ["--listen-peer-urls", f"http://127.0.0.1:{peers}", "--unsafe-no-fsync"]
            etcd.run(command)
            until(lambda: _answers(f"{here}/health"), f"etcd; it said:\n{etcd.log_tail()}")
            self.poolers = {POOLED_HAPROXY: Bouncer(self.password)}
            for pooler in self.poolers.values():
                self._stack.callback(pooler.close)
            self.members = [Member(name, port, self) for name in MEMBERS]
            for member in self.members:
                self._stack.callback(member.close)
            self.members[0].start()
            until(lambda: self.leader is not None, "the first leader")
            for member in self.members[1:]:
                member.start()
            self._haproxy()
            for pooler in self.poolers.values():
                pooler.start()
            self.whole()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _haproxy(self) -> None:
        self.port = free_port()
        servers = "".join(
            f"  server {m.name} 127.0.0.1:{m.port} check port {m.api}\n" for m in self.members
        )
        haproxy = _Program(None, "haproxy-")
        self._stack.callback(haproxy.close)
        file = haproxy.write("haproxy.cfg", HAPROXY.format(port=self.port, servers=servers))
        haproxy.run([str(find("haproxy")), "-db", "-f", str(file)])

    # ------------------------------------------------------------------------------ looking

    def reached(self, way: str) -> tuple[int, dict[str, Any]]:
        """The application's port on the loopback, and where PgBouncer, if any, finds the leader."""
        if way == BY_HAPROXY:
            return self.port, {}
        server = {"host": "127.0.0.1", "port": self.port}
        return self.poolers[way].port, {"server": server}

    def dsn_for(self, database: str) -> str:
        """The superuser's connection string: all members, whichever takes writes."""
        return make_conninfo(
            host=",".join("127.0.0.1" for _ in self.members),
            port=",".join(str(member.port) for member in self.members),
            user="postgres",
            password=self.password,
            dbname=database,
            connect_timeout=3,
            target_session_attrs="read-write",
        )

    def by_haproxy(self, database: str, user: str, password: str) -> str:
        """An application's connection string."""
        return make_conninfo(
            host="127.0.0.1", port=self.port, user=user, password=password, dbname=database
        )

    @property
    def leader(self) -> Member | None:
        """The member that Patroni says takes writes; None while there is none."""
        for member in self.members:
            if member.running and _answers(f"http://127.0.0.1:{member.api}/primary"):
                return member
        return None

    def roles(self) -> dict[str, str]:
        """Each member's role and state, as the cluster knows them."""
        for member in self.members:
            with contextlib.suppress(OSError, ValueError):
                told = _ask(f"http://127.0.0.1:{member.api}/cluster")
                return {one["name"]: f"{one['role']} {one['state']}" for one in told["members"]}
        return {}

    def whole(self, *, synchronous: bool = True) -> None:
        """Wait until all members follow the leader, one of them synchronously where wanted."""
        for member in self.members:
            member.forwarder.mend()
            member.start()

        def stands() -> bool:
            roles = self.roles()
            leader = self.leader
            if leader is None or len(roles) != len(MEMBERS):
                return False
            if any(role.split()[1:] not in (["running"], ["streaming"]) for role in roles.values()):
                return False
            kinds = sorted(role.split()[0] for role in roles.values())
            wanted = ["leader", "replica", "sync_standby" if synchronous else "replica"]
            with self.session(leader) as session:
                followers, names = session.execute(
                    # A member that is being copied again streams as well, by another name.
                    "SELECT (SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' "
                    f"AND application_name IN ({', '.join(repr(name) for name in MEMBERS)})), "
                    "current_setting('synchronous_standby_names')"
                ).fetchall()[0]
            return kinds == sorted(wanted) and followers == 2 and bool(names) == synchronous

        until(stands, "a whole cluster")

    def session(self, member: Member) -> contextlib.AbstractContextManager[psycopg.Connection]:
        """A superuser's session on one member."""
        dsn = make_conninfo(
            host="127.0.0.1",
            port=member.port,
            user="postgres",
            password=self.password,
            dbname="postgres",
            connect_timeout=3,
        )
        return contextlib.closing(psycopg.connect(dsn, autocommit=True))

    # ------------------------------------------------------------------------------ acting

    def set_synchronous(self, wanted: bool) -> None:
        """Have Patroni keep a synchronous standby, or none."""
        leader = self._led()
        _ask(
            f"http://127.0.0.1:{leader.api}/config",
            {"synchronous_mode": wanted},
            method="PATCH",
        )
        self.whole(synchronous=wanted)

    def cut_replication(self) -> None:
        """No standby receives anything from the leader any more."""
        leader = self._led()
        leader.forwarder.cut()
        with self.session(leader) as session:
            query = "SELECT count(*) FROM pg_stat_replication"
            until(lambda: session.execute(query).fetchall() == [(0,)], "the standbys to be gone")

    def kill_leader(self) -> Member:
        """SIGKILL all of the leader's machine."""
        leader = self._led()
        leader.kill()
        return leader

    def switch_over(self) -> Member:
        """Ask for an orderly switchover, and wait until the leader takes no writes any more."""
        leader = self._led()
        with contextlib.suppress(OSError, ValueError):
            _ask(f"http://127.0.0.1:{leader.api}/switchover", {"leader": leader.name}, seconds=60)
        return leader

    def another_than(self, before: Member) -> Member:
        """Wait for a leader other than that one."""
        until(lambda: self.leader not in (None, before), "another leader")
        return self._led()

    def _led(self) -> Member:
        until(lambda: self.leader is not None, "a leader")
        leader = self.leader
        if leader is None:
            raise TimeoutError("the leader is gone again")
        return leader


class Bouncer(_Program):
    """PgBouncer, whose alias file the job writes."""

    def __init__(self, password: str) -> None:
        super().__init__(None, "pgbouncer-")
        self.port = free_port()
        self.alias_file = self.write("aliases.ini", "")
        self.console = make_conninfo(
            host="127.0.0.1", port=self.port, dbname="pgbouncer", user="admin", password=password
        )
        userlist = self.write("userlist.txt", f'"admin" "{password}"\n"app" "secret"\n')
        text = PGBOUNCER.format(aliases=self.alias_file, port=self.port, userlist=userlist)
        self._file = self.write("pgbouncer.ini", text)

    def start(self) -> None:
        """Run it, and wait until its console answers."""
        self.run([str(find("pgbouncer")), str(self._file)])
        until(lambda: self._shows("VERSION") != [], f"PgBouncer; it said:\n{self.log_tail()}")

    def _shows(self, what: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.console, autocommit=True) as console:
            return psycopg.ClientCursor(console).execute(f"SHOW {what}".encode()).fetchall()


PGBOUNCER = """\
[databases]
%include {aliases}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {userlist}
admin_users = admin
pool_mode = transaction
server_login_retry = 1
server_connect_timeout = 2
"""

HAPROXY = """\
global
  maxconn 200
defaults
  mode tcp
  timeout connect 2s
  timeout client 5m
  timeout server 5m
  timeout check 2s
listen leader
  bind 127.0.0.1:{port}
  option httpchk GET /primary
  http-check expect status 200
  default-server inter 300ms fall 2 rise 1 on-marked-down shutdown-sessions
{servers}"""


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=3) as answer:  # noqa: S310 - loopback
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def _ask(
    address: str, told: dict[str, Any] | None = None, *, method: str = "", seconds: float = 5
) -> dict[str, Any]:
    body = None if told is None else json.dumps(told).encode()
    request = urllib.request.Request(  # noqa: S310 - loopback
        address,
        data=body,
        method=method or ("GET" if told is None else "POST"),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
        content = answer.read().decode()
    found: dict[str, Any] = json.loads(content) if content.startswith("{") else {}
    return found
