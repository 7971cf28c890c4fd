"""Pictures of the dashboard, by Debian's chromium and chromium-driver. `scripts.pictures` calls it.

The pages are those of a demo that runs meanwhile, so each picture shows what a person who runs ``make demo`` sees.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import click
from redis import Redis

from rqmem.observe.snapshot import read_alerts
from scripts.harness import dashboard, running

WIDTH, HEIGHT = 1280, 720
HEIGHT_OF_A_JOB = 900  # down to the evidence of its breach
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
          "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip
_NEAR_PERCENTAGE = 80
_DRAWN_SECONDS = 3.0


def missing() -> str:
    """Why no picture can be made; empty: nothing is missing."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(absent)} not found: install Debian's chromium and chromium-driver" if absent else ""


def take(folder: Path, redis_url: str) -> None:
    """Run a demo on that Redis and make the pictures in the folder. Raises `click.ClickException`."""
    os.environ["RQMEM_REDIS_URL"] = redis_url  # of the demo and of the dashboard
    with (
        tempfile.TemporaryDirectory() as logs,
        running("scripts.demo", stdout=subprocess.DEVNULL) as demo,
        dashboard(Path(logs) / "log", port=0) as address,
        _chromium() as driver,
    ):
        _open(driver, f"{address}live", "dark")
        while _nearest(address) < _NEAR_PERCENTAGE:
            if demo.poll() is not None:
                raise click.ClickException("the demo ended before a job was near its ceiling")
            time.sleep(0.1)
        _picture(driver, folder / "dashboard-live.png")
        _open(driver, address, "light")
        _picture(driver, folder / "dashboard-overview.png")
        demo.wait()
        _open(driver, f"{address}jobs/{breached(redis_url)}", "light", HEIGHT_OF_A_JOB)
        _picture(driver, folder / "dashboard-job.png")


def _nearest(address: str) -> float:
    """How near the ceiling a job is, in percent; 0 without one."""
    with urlopen(f"{address}api/v1/live") as answer:
        workers = json.load(answer).get("workers", [])
    return max((each["job"]["usage_percentage"] for each in workers if each["job"]), default=0.0)


def breached(redis_url: str) -> str:
    """The id of the job that reached its ceiling."""
    connection = Redis.from_url(redis_url)
    return next(each.job_id for each in read_alerts(connection) if each.rule == "ceiling-exceeded")


@contextmanager
def _chromium() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in _FLAGS:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    try:
        yield driver
    finally:
        driver.quit()


def _open(driver: Any, url: str, theme: str, height: int = HEIGHT) -> None:
    size = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    )
    driver.get(url)
    time.sleep(_DRAWN_SECONDS)


def _picture(driver: Any, path: Path) -> None:
    """With another address of Redis, which is new each time."""
    driver.execute_script("document.querySelector('.where').textContent = 'redis://127.0.0.1:6379'")
    driver.save_screenshot(str(path))
