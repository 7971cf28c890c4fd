"""``rqmem alerts test`` and ``rqmem alerts deliver``: sending alerts on, by `rqmem.alerts`."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import threading

import click
from redis.exceptions import RedisError

from rqmem import log
from rqmem.alerts import messages
from rqmem.alerts.addresses import Address, addresses
from rqmem.alerts.sender import Sender
from rqmem.alerts.service import keep_others_quiet, services
from rqmem.cli.options import setting_options
from rqmem.cli.terminal import connected, redis_options, show
from rqmem.config.load import load
from rqmem.errors import RqmemError

_LOOK_SECONDS = 1.0
_log = logging.getLogger("rqmem.alerts")


@click.command(short_help="Send a test message to each URL.")
@setting_options("Alerts")
@click.pass_context
def test(ctx: click.Context, alert_urls: tuple[str, ...], alert_urls_file: str | None) -> None:
    """Send a message to each alert URL, now, and say which took it.

    The URLs are those of RQMEM_ALERT_URLS and RQMEM_ALERT_URLS_FILE, unless
    given here. They are secrets, and everybody can see a command's arguments
    with 'ps', so keep them in a file that only you can read.

    Exit code 1 when a service did not take the message.
    """
    found = _addresses(alert_urls, alert_urls_file)
    keep_others_quiet()
    failed = False
    for address, service in zip(found, services(found), strict=True):
        reason = service.send(messages.trial(address.position))
        failed = failed or bool(reason)
        show(f"{address.shown}: {f'not taken: {reason}' if reason else 'taken'}")
    ctx.exit(1 if failed else 0)


@click.command(short_help="Send alerts on as they come.")
@redis_options
@setting_options("Alerts")
@click.option("--name", metavar="NAME", help="Of this sender; no other that runs may have it.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text")
def deliver(
    url: str | None,
    alert_urls: tuple[str, ...],
    alert_urls_file: str | None,
    name: str | None,
    log_format: log.LogFormat,
) -> None:
    """Send alerts to all alert URLs as they come, until stopped.

    A worker with alert URLs starts this by itself. To run it on one machine
    for all workers, give the URLs to this command and to no worker. Any number
    may run: each alert is sent to each URL once.

    On SIGTERM and Ctrl-C it sends what is there, for ten seconds at most.
    """
    log.configure("info", log_format)
    keep_others_quiet()
    found = _addresses(alert_urls, alert_urls_file)
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    sender, where = _started(found, url, name)
    _log.info("alerts from %s are sent to %s", where, ", ".join(each.shown for each in found))
    while not asked.wait(_LOOK_SECONDS):
        pass
    sender.stop()


def _started(found: list[Address], url: str | None, name: str | None) -> tuple[Sender, str]:
    """A sender at work, and its Redis for people. Raises `RqmemError`."""
    ready = services(found)
    connection, where = connected(url)
    sender = Sender(connection, found, ready, name)
    try:
        sender.start()
    except RedisError as error:
        raise RqmemError(f"Redis at {where} cannot be used: {error}") from None
    return sender, where


def _addresses(urls: tuple[str, ...], file: str | None) -> list[Address]:
    """Those of the command line, else of environment or config file. Raises `ConfigError`, also for none."""
    config = load(os.environ).config
    if urls or file:
        config = dataclasses.replace(config, alert_urls=urls, alert_urls_file=file)
    return addresses(config)
