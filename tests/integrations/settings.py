"""A small Django project with one application, ``shop``; its database and Redis come from the environment."""

import os

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["django_rq", "tests.integrations.shop"]
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
DEBUG = bool(os.environ.get("TEST_DEBUG"))
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.integrations.urls"
RQ = {"WORKER_CLASS": "rqmem.MemoryWorker", "COMMIT_MODE": "auto"}
RQ_QUEUES = {
    "default": {"URL": os.environ["TEST_REDIS_URL"]},
    "shop": {"URL": os.environ["TEST_REDIS_URL"], "DEFAULT_TIMEOUT": 77},
}
_max_age = os.environ.get("TEST_MAX_AGE", "0")
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("TEST_SQLITE", ""),
        "CONN_MAX_AGE": None if _max_age == "none" else int(_max_age),
        "AUTOCOMMIT": not os.environ.get("TEST_NO_AUTOCOMMIT"),
    }
}
if "TEST_POSTGRES" in os.environ:
    DATABASES["default"].update(
        ENGINE="django.db.backends.postgresql",
        NAME=os.environ["TEST_POSTGRES"],
        HOST=os.environ["TEST_POSTGRES_HOST"],
        USER="rqmem",
    )
