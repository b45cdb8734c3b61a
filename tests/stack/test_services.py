"""Embedded PostgreSQL and Valkey: recovery after a kill, clean stop, no orphans, exact permissions."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from stack.accounts import service_account, service_home
from stack.ports import is_listening
from stack.procstat import is_running
from stack.roles import _role_ensure, passwords_load, roles_ensure
from stack.services import EmbeddedPostgres, EmbeddedValkey, ServiceError, binaries
from stack.spawn import run_as


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(Path(tempfile.mkdtemp()), durable=False)
    yield server
    server.remove()


@pytest.fixture
def postgres(postgres_server: EmbeddedPostgres) -> EmbeddedPostgres:
    """One server for the module, running whatever the test before did to it."""
    if postgres_server.pid is None:
        postgres_server.start()
    return postgres_server


@pytest.fixture
def valkey(folder: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(folder / "valkey").start()
    yield server
    server.remove()


def wait_gone(pids: list[int], deadline_s: float = 20.0) -> None:
    deadline = time.monotonic() + deadline_s
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still running: {[pid for pid in pids if is_running(pid)]}"
        time.sleep(0.02)


def test_postgres_keeps_what_was_committed_through_kill_and_stop(folder: Path) -> None:
    EmbeddedPostgres(folder / "postgres", durable=False).prepare()  # spares the slow sync of new files
    postgres = EmbeddedPostgres(folder / "postgres").start()
    with psycopg.connect(postgres.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    postgres.kill()
    postgres.start()
    with psycopg.connect(postgres.url()) as connection:
        connection.execute("INSERT INTO kept VALUES (2)")
    postgres.stop()
    postgres.start()
    with psycopg.connect(postgres.url()) as connection:
        assert connection.execute("SELECT n FROM kept ORDER BY n").fetchall() == [(1,), (2,)]
    postgres.remove()


def test_postgres_starts_although_its_old_number_belongs_to_another_program(
    postgres: EmbeddedPostgres,
) -> None:
    postgres.stop()
    lock = postgres.data / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n{postgres.data}\n0\n{postgres.port}\n\n127.0.0.1\n")
    postgres.start()
    assert postgres.answers()


def test_postgres_left_by_another_supervisor_is_ended_first(postgres: EmbeddedPostgres) -> None:
    orphan = postgres.pid
    assert orphan is not None
    second = EmbeddedPostgres(postgres.folder, durable=False).start()
    try:
        assert not is_running(orphan)
        assert second.answers()
    finally:
        second.stop()


def test_an_interrupted_first_start_is_repaired(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "postgres", durable=False)
    left = service_home(server.folder / "home", server.account) / "data.partial" / "global"
    left.mkdir(parents=True)
    (left / "pg_control").write_bytes(b"half of it")
    with server:
        assert server.answers()
    server.remove()


def test_wrong_password_is_refused_and_secrets_are_private(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey
) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url(password="wrong"))
    wrong = redis.Redis(port=valkey.port, password="wrong")
    with pytest.raises(redis.exceptions.AuthenticationError):
        wrong.ping()
    wrong.close()
    for server in (postgres, valkey):
        assert stat.S_IMODE((server.folder / "password").stat().st_mode) == 0o600
        assert stat.S_IMODE(server.home.stat().st_mode) == 0o700
        arguments = Path(f"/proc/{server.pid}/cmdline").read_text()
        assert server.password not in arguments


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops privileges")
def test_root_runs_servers_as_an_ordinary_user(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
    account = service_account()
    assert account is not None
    for server in (postgres, valkey):
        assert Path(f"/proc/{server.pid}").stat().st_uid == account.uid != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops privileges")
def test_root_runs_servers_on_data_of_another_user_as_that_user(folder: Path) -> None:
    other = next(each for each in pwd.getpwall() if each.pw_uid not in (0, service_account_uid()))
    home = folder / "home"
    home.mkdir()
    os.chown(home, other.pw_uid, other.pw_gid)
    account = service_account(home)
    assert account is not None
    assert (account.uid, account.gid) == (other.pw_uid, other.pw_gid)


def service_account_uid() -> int:
    account = service_account()
    return account.uid if account else -1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops privileges")
def test_programs_out_of_reach_are_copied_with_their_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    account = service_account()
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        monkeypatch.setattr(binaries, "can_reach", lambda *_: False)
        monkeypatch.setattr(binaries, "root_base", lambda: Path(name))
        for program in (binaries.postgres_bin(account) / "initdb", binaries.valkey_server(account)):
            assert program.is_relative_to(name)
            result = run_as([str(program), "--version"], env={}, account=account)
            assert result.returncode == 0, result.stdout
        assert binaries.postgres_bin(account) == binaries.postgres_bin(account)
        assert len(list(Path(name).iterdir())) == 2


def test_valkey_keeps_acknowledged_writes_through_a_kill(valkey: EmbeddedValkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        client.set("kept", "1")
    valkey.kill()
    valkey.start()
    with redis.Redis.from_url(valkey.url) as client:
        assert client.get("kept") == b"1"


def test_a_taken_port_is_reported_with_the_log(valkey: EmbeddedValkey, folder: Path) -> None:
    second = EmbeddedValkey(folder / "second", valkey.port)
    second.folder.mkdir()
    (second.folder / "password").write_text(valkey.password + "x")
    with pytest.raises(ServiceError, match=r"(?s)exited with status 1.*ddress already in use"):
        second.start()
    second.remove()


_PARENT = """
import sys, time
from pathlib import Path
from stack.services import EmbeddedPostgres, EmbeddedValkey
folder = Path(sys.argv[1])
servers = [EmbeddedPostgres(folder / "postgres", durable=False), EmbeddedValkey(folder / "valkey")]
print(*(server.start().pid for server in servers), *(server.port for server in servers), flush=True)
time.sleep(60)
"""


def test_no_server_outlives_a_killed_parent(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(folder)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        *pids, postgres_port, valkey_port = (int(word) for word in parent.stdout.readline().split())
        parent.send_signal(signal.SIGKILL)
    wait_gone(pids)
    assert not is_listening(postgres_port)
    assert not is_listening(valkey_port)
    for server in (EmbeddedPostgres(folder / "postgres"), EmbeddedValkey(folder / "valkey")):
        with server:
            assert server.answers()
        server.remove()


def test_roles_are_kept_by_one_who_may_only_create_roles(folder: Path, postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("CREATE ROLE keeper LOGIN CREATEROLE CREATEDB PASSWORD 'keeper'")
        connection.execute("CREATE ROLE mighty LOGIN BYPASSRLS")
        connection.execute("GRANT mighty TO keeper WITH ADMIN TRUE")
    keeper = postgres.url("keeper", "keeper")
    passwords = {name.replace("tokenworks", "kept"): "x" for name in passwords_load(folder / "roles")}
    with psycopg.connect(keeper, autocommit=True) as connection:
        for _ in range(2):
            for role, password in passwords.items():
                _role_ensure(connection, role, password)
        with pytest.raises(RuntimeError, match="role mighty has powers"):
            _role_ensure(connection, "mighty", "x")


def test_roles_are_separate_and_repeatable(folder: Path, postgres: EmbeddedPostgres) -> None:
    passwords = passwords_load(folder / "roles")
    urls = roles_ensure(postgres.url(), passwords)
    assert roles_ensure(postgres.url(), passwords) == urls
    with psycopg.connect(urls.owner) as connection:
        connection.execute("CREATE TABLE secret (n int)")
    for url in (urls.app, urls.system):
        with psycopg.connect(url, autocommit=True) as connection:
            row = connection.execute(
                "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles"
                " WHERE rolname = current_user"
            ).fetchone()
            assert row == (False, False, False, False)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT * FROM secret")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("CREATE TABLE mine (n int)")
