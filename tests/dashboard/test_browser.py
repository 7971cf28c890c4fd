"""The dashboard in Chromium: live changes, hostile texts, Redis away, keyboard, screen readers. One browser for all."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis import Redis
from rq import Queue

from rqmem.connection.looking import to_look_at
from rqmem.dashboard.app import build
from rqmem.dashboard.options import Options
from rqmem.dashboard.serving import DashboardServer
from rqmem.dashboard.state import EXTENSION
from rqmem.job import tree
from rqmem.store import actions, pausing
from rqmem.store.history import history_writer
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.conftest import WorkOff
from tests.dashboard.conftest import JOB, TYPE, busy
from tests.journal_filling import a_live, a_pool, register

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver (chromium-driver) is not there"),
    pytest.mark.xdist_group("browser"),
]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
PAYLOADS = (
    "<img src=x onerror=\"document.title='pwned'\">",
    "<script>document.title='pwned'</script>",
    '"><svg onload="document.title=\'pwned\'">',
    "' autofocus onfocus='document.title=`pwned`' x='",
    "javascript:document.title='pwned'",
    "'+(document.title='pwned')+'",
    "{{ 7 * 7 }}</title></style></textarea><iframe srcdoc='<script>top.document.title=1</script>'>",
)
SECONDS = 60.0


class Browser:
    """Chromium, with what the tests ask of it."""

    def __init__(self, directory: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={directory}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
        self.url = ""

    def command(self, name: str, **values: Any) -> Any:
        """One of the Chrome DevTools Protocol."""
        return self.driver.execute_cdp_cmd(name, values)

    def look(self, width: int = 1280, theme: str = "light") -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def open(self, path: str) -> None:
        self.driver.get(self.url + path)

    def ask(self, expression: str) -> Any:
        return self.driver.execute_script(f"return {expression}")

    def text(self, selector: str = "body") -> str:
        return str(self.ask(f"(document.querySelector({selector!r}) || {{innerText: ''}}).innerText"))

    def words(self) -> str:
        """The text of the page, with one space between words."""
        return " ".join(self.text("main").split())

    def see(self, pattern: str, selector: str = "main") -> None:
        """Wait until the text there has this in it."""
        try:
            wait_until(lambda: re.search(pattern, self.text(selector)), SECONDS)
        except BaseException as error:
            raise AssertionError(f"{pattern!r} is not in {self.text(selector)!r}") from error

    def complaints(self) -> list[str]:
        """What the console said since the last time: errors of scripts, refusals of the CSP."""
        told = [f"{each['level']}: {each['message']}" for each in self.driver.get_log("browser")]
        return [each for each in told if "Failed to load resource" not in each]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.driver.quit()


@pytest.fixture(scope="module")
def application(redis_url: str) -> Any:
    return build(*to_look_at(redis_url, 2.0), Options(own_server=True, with_rq_dashboard=True))


@pytest.fixture(scope="module")
def address(application: Any) -> str:
    server = DashboardServer(application, "127.0.0.1", 0)
    threading.Thread(target=server.run, daemon=True).start()
    return server.url.rstrip("/")


@pytest.fixture
def browser(chromium: Browser, address: str, connection: Redis) -> Iterator[Browser]:
    """On our own Redis, which is empty, at 1280 pixels, in light."""
    chromium.url = address
    chromium.look()
    chromium.complaints()
    yield chromium
    chromium.driver.get("about:blank")


def pages(application: Any) -> list[str]:
    """The paths of all pages."""
    with application.test_request_context():
        adapter = application.url_map.bind("localhost")
        values = {"job_id": JOB, "job_type": TYPE, "queue": "q"}
        found = [
            adapter.build(rule.endpoint, {name: values[name] for name in rule.arguments})
            for rule in application.url_map.iter_rules()
            if rule.endpoint.startswith(("pages.", "actions."))
            and "GET" in (rule.methods or ())
            and not rule.rule.endswith(".csv")
        ]
    return sorted(found)


def test_a_running_job_is_seen_live_until_it_ends(
    browser: Browser, connection: Redis, start_worker: Callable[..., Any], application: Any
) -> None:
    browser.open("/live")
    browser.see("No worker runs on this Redis")
    job = sample_jobs.Slow.enqueue("live", count=60, seconds=0.5, connection=connection)
    worker = start_worker("live", "--name", "the-live-one")
    browser.see("the-live-one", "#workers")
    browser.see("Slow", "#workers")
    browser.see(r"of 256 MB, \d+ %", "#workers")
    wait_until(
        lambda: float(browser.ask("document.querySelector('#workers rect.accent').getAttribute('width')")) > 0, 60
    )
    assert browser.ask("document.querySelector('#workers a').getAttribute('href')") == f"/jobs/{job.id}"
    wait_until(lambda: browser.ask("!!document.querySelector('#workers canvas')"), SECONDS)
    first = browser.text("#status")
    wait_until(lambda: browser.text("#status") != first, SECONDS)
    hub = application.extensions[EXTENSION].hub
    assert hub.seats._value == 47
    browser.ask("Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})")
    browser.ask("document.dispatchEvent(new Event('visibilitychange'))")
    wait_until(lambda: hub.seats._value == 48, SECONDS)  # a hidden page asks for nothing
    browser.ask("Object.defineProperty(document, 'hidden', {get: () => false, configurable: true})")
    browser.ask("document.dispatchEvent(new Event('visibilitychange'))")
    wait_until(lambda: hub.seats._value == 47, SECONDS)
    browser.open(f"/jobs/{job.id}")
    browser.see("started")
    browser.see("running now")
    worker.kill()
    browser.open("/live")
    browser.see("the-live-one", "#workers")
    assert browser.complaints() == []


def test_a_page_asks_where_too_many_get_events(browser: Browser, connection: Redis, application: Any) -> None:
    busy(connection)
    seats = application.extensions[EXTENSION].hub.seats
    wait_until(lambda: seats._value == 48, SECONDS)
    for _ in range(48):
        seats.acquire()
    try:
        browser.open("/live")
        browser.see("web-1-w1", "#workers")
        first = browser.text("#status")
        wait_until(lambda: browser.text("#status") != first, SECONDS)
    finally:
        for _ in range(48):
            seats.release()
    assert browser.complaints() == []


def test_the_job_page_changes_while_it_is_open(browser: Browser, connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Plain.enqueue(number=7, connection=connection)
    browser.open(f"/jobs/{job.id}")
    browser.see("queued")
    work_off("plain")
    wait_until(lambda: "finished" in browser.text("main"), SECONDS)
    assert browser.complaints() == []


def test_each_page_follows_a_worker_by_itself(
    browser: Browser, connection: Redis, start_worker: Callable[..., Any]
) -> None:
    """Opened before the job is there; nothing is loaded anew by hand."""
    worker = start_worker("live", "--name", "the-live-one")
    pages: list[tuple[str, str, str]] = [
        ("/", "Nearest to the ceiling.*the-live-one", ""),
        ("/live", "Slow {id}", ""),
        ("/jobs?state=started", "{id}", ""),
        ("/workers", "busy.*{id}", ""),
        ("/queues", r"live 0 1\b", ""),
        ("/jobs?state=failed", "", "{id}"),
        ("/types", "", r"Slow {ended}\b"),
    ]
    for ended, (path, while_it_runs, after_it) in enumerate(pages, 1):
        browser.open(path)
        before = browser.words()
        job = sample_jobs.Slow.enqueue("live", count=600, seconds=0.2, connection=connection)
        for pattern in (while_it_runs, after_it):
            wanted = pattern.replace("{id}", job.id[:8]).replace("{ended}", str(ended))
            assert not wanted or not re.search(wanted, before), path
            if pattern == after_it:
                wait_until(lambda job=job: job.get_status(refresh=True) == "started", SECONDS)
                tree.cancel(connection, job.id)
            wait_until(lambda wanted=wanted: re.search(wanted, browser.words()), SECONDS)
        assert browser.complaints() == [], path
    worker.kill()


def test_hostile_texts_are_shown_as_texts(browser: Browser, connection: Redis, application: Any) -> None:
    for number, payload in enumerate(PAYLOADS):
        busy(connection, payload, JOB[:-1] + str(number), TYPE + payload)
    with application.test_request_context():
        adapter = application.url_map.bind("localhost")
        hostile = [adapter.build("pages.job_type", {"job_type": TYPE + payload}) for payload in PAYLOADS] + [
            f"/jobs/{JOB[:-1]}{number}" for number in range(len(PAYLOADS))
        ]
        hostile.append(adapter.build("pages.search", {"q": PAYLOADS[0]}))
    shown = 0
    for path in [path for path in pages(application) if TYPE not in path] + hostile:
        browser.open(path)
        if path == "/live":
            browser.see("items <img", "#workers")
        shown += browser.text().count("<img src=x") + browser.text().count("<script>")
        assert browser.driver.title not in ("pwned", "1"), path
        assert (
            browser.ask("document.querySelectorAll('main img, iframe, main script, [onerror], [onload]').length") == 0
        )
        assert browser.complaints() == [], path
    assert shown > 20


def test_hostile_texts_are_shown_as_texts_by_rq_dashboard(browser: Browser, connection: Redis) -> None:
    """Its own scripts put what they get into the page as HTML."""
    for number, payload in enumerate(PAYLOADS):
        busy(connection, payload, JOB[:-1] + str(number), TYPE + payload)
    routed = [payload for payload in PAYLOADS if "/" not in payload]
    queues = [f"/rq/0/view/jobs/{quote(f'q{payload}', safe='')}/failed/8/asc/1" for payload in routed]
    failed = connection.zrange(f"rq:failed:q{PAYLOADS[0]}", 0, -1)
    shown = {
        **dict.fromkeys(("/rq/", "/rq/0/view/workers"), PAYLOADS[0]),
        **{f"/rq/0/view/job/{JOB[:-1]}{number}": payload for number, payload in enumerate(PAYLOADS)},
        f"/rq/0/view/job/{failed[0].decode()}": f"failed({PAYLOADS[0]})",
        **dict(zip(queues, routed, strict=True)),
    }
    for path, text in shown.items():
        browser.open(path)
        browser.see(re.escape(text), "body")
        assert browser.driver.title not in ("pwned", "1"), path
        assert (
            browser.ask("document.querySelectorAll('img[src=x], iframe, [onerror], [onload], [onfocus]').length") == 0
        )
        assert browser.complaints() == [], path


@pytest.mark.parametrize("path", ["/live", "/queues"])
def test_a_page_says_that_redis_is_away_and_goes_on_by_itself(browser: Browser, connection: Redis, path: str) -> None:
    busy(connection)
    browser.open(path)
    browser.see("web-1-w1" if path == "/live" else "1 job waits")
    server = int(connection.info("server")["process_id"])
    os.kill(server, signal.SIGSTOP)
    try:
        browser.see("Redis does not answer", "#notice")
        assert "web-1-w1" in browser.text("main") or path == "/queues"
    finally:
        os.kill(server, signal.SIGCONT)
    wait_until(lambda: browser.ask("document.getElementById('notice').hidden"), SECONDS)
    connection.rpush("rq:queue:new", "x")
    connection.sadd("rq:queues", "rq:queue:new")
    browser.see(r"\bnew\b")


def test_axe_finds_nothing_on_any_page(browser: Browser, connection: Redis, application: Any) -> None:
    busy(connection, share=0.85)
    found: list[str] = []
    for width, theme, rules in ((1280, "light", None), (1280, "dark", ["color-contrast"]), (390, "light", None)):
        browser.look(width, theme)
        for path in pages(application):
            browser.open(path)
            if path == "/live":
                browser.see("85 %", "#workers")
            browser.driver.execute_script(AXE)
            only = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
            told = browser.driver.execute_async_script(
                "const done = arguments[1]; axe.run(document, arguments[0]).then(done)", only
            )
            for each in told["violations"]:
                found.append(f"{path} {width} {theme}: {each['id']}: {[node['html'][:150] for node in each['nodes']]}")
            if browser.ask("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
                found.append(f"{path} {width}: scrolls sideways")
    browser.look()
    assert not found, "\n".join(found)


def test_a_phone_shows_each_cell_of_a_wide_table_with_the_name_of_its_column(
    browser: Browser, connection: Redis
) -> None:
    """A row becomes a card. A screen reader still finds a table."""
    busy(connection)
    for width, shown in ((1280, False), (390, True), (1280, False)):
        browser.look(width)
        if width == 1280 or not browser.driver.current_url.endswith("/queues"):
            browser.open("/queues")
        browser.see(r"\bq\b")
        assert browser.ask("!!document.querySelector('main .cards')") is shown
    browser.look(390)
    wait_until(lambda: browser.ask("!!document.querySelector('main .cards')"), SECONDS)  # of the page that is open
    cells = browser.ask(
        "Array.from(document.querySelectorAll('.cards tbody tr:first-child > *'), e => [e.getAttribute('role'),"
        " getComputedStyle(e, '::before').content, e.getBoundingClientRect().right])"
    )
    assert [role for role, _, _ in cells] == ["rowheader", *["cell"] * (len(cells) - 1)]
    assert '"Queued"' in cells[1][1] or "Queued" in browser.ask("document.querySelector('.cards td').dataset.name")
    assert max(right for _, _, right in cells) <= 390
    browser.look()


def test_long_names_widen_no_page(browser: Browser, connection: Redis, application: Any) -> None:
    """Each table keeps its columns within the page at 1280 pixels, as cards at 390. No page scrolls sideways."""
    name = "averylongnamewithoutanyplacetobreak" * 5
    busy(connection, name, job_type=f"shop.{'deep.' * 20}{name}")
    found = []
    for width in (1280, 390):
        browser.look(width)
        for path in pages(application):
            browser.open(path)
            if path == "/live":
                browser.see("70 %", "#workers")
            if browser.ask("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
                found.append(f"{path} {width}: scrolls sideways")
            wide = (
                "Array.from(document.querySelectorAll('.scroll')).filter(e => e.scrollWidth > e.clientWidth + 1).length"
            )
            assert width != 1280 or not browser.ask("!!document.querySelector('.cards')"), path
            if browser.ask(wide):
                found.append(f"{path} {width}: a table is wider than the page")
    browser.look()
    assert not found, "\n".join(found)


def test_a_keyboard_reaches_content_search_and_rows(browser: Browser, connection: Redis) -> None:
    from selenium.webdriver.common.keys import Keys

    busy(connection)
    browser.open("/")

    def press(*keys: str) -> str:
        for key in keys:
            webdriver.ActionChains(browser.driver).send_keys(key).perform()
        return str(browser.ask("(document.activeElement.innerText || document.activeElement.name || '').trim()"))

    assert press(Keys.TAB) == "Skip to content"
    outline = browser.ask("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    press(Keys.ENTER)
    assert browser.ask("document.activeElement.id") == "main"
    browser.open("/")
    assert press(Keys.TAB, Keys.TAB) == "rqmem"
    assert press(Keys.TAB) == "q"
    press(*"Export", Keys.ENTER)
    browser.see("What does shop.exports.ExportJob need")
    assert browser.driver.current_url.endswith(f"/types/{TYPE}")


def test_a_keyboard_ticks_a_job_confirms_and_sees_each_step(
    browser: Browser, connection: Redis, work_off: WorkOff
) -> None:
    from selenium.webdriver.common.keys import Keys

    [job_id] = fail_jobs(connection, work_off, "no customer 1")
    focus = "((e) => [(e.value || e.innerText || '').trim(), getComputedStyle(e).outlineStyle])(document.activeElement)"

    def tab_to(wanted: str) -> None:
        for _ in range(60):
            webdriver.ActionChains(browser.driver).send_keys(Keys.TAB).perform()
            text, outline = browser.ask(focus)
            if browser.ask("document.activeElement !== document.body"):
                assert outline != "none", f"{text!r} has the focus, and does not show it"
            if wanted in text:
                return
        raise AssertionError(f"{wanted!r} is not reached")

    def press(key: str) -> None:
        webdriver.ActionChains(browser.driver).send_keys(key).perform()

    browser.open("/jobs?state=failed")
    browser.see("no customer 1")
    tab_to(job_id)
    press(Keys.SPACE)
    tab_to("retry")
    press(Keys.ENTER)
    browser.see("Retry 1 job")
    tab_to("Retry 1 job")
    press(Keys.ENTER)
    browser.see("1 of 1 job queued again")
    assert connection.lrange("rq:queue:bad", 0, -1) == [job_id.encode()]


def test_pages_are_whole_without_scripts(browser: Browser, connection: Redis, application: Any) -> None:
    busy(connection)
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        for path in pages(application):
            browser.open(path)
            page = browser.driver.page_source
            assert "<h1>" in page, path
            if path == "/live":
                assert "scripts are off" in page
        browser.open(f"/jobs/{JOB}")
        assert re.search(r"\d\d:\d\d:\d\d UTC", browser.driver.page_source)
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)


def test_times_are_told_in_the_zone_of_the_viewer(browser: Browser, connection: Redis) -> None:
    busy(connection)
    told = set()
    for zone in ("Asia/Tokyo", "America/New_York"):
        browser.command("Emulation.setTimezoneOverride", timezoneId=zone)
        browser.open(f"/jobs/{JOB}")
        told.add(browser.text("time"))
        assert "UTC" not in browser.text("time")
    browser.command("Emulation.setTimezoneOverride", timezoneId="")
    assert len(told) == 2


def test_the_theme_is_kept(browser: Browser, connection: Redis) -> None:
    grounds = []
    browser.open("/")
    for _ in range(3):
        grounds.append(browser.ask("getComputedStyle(document.body).backgroundColor"))
        browser.driver.find_element("id", "theme").click()
        browser.open("/")
    assert grounds[0] == grounds[1] != grounds[2]  # the system's is light; light; dark
    assert browser.text("#theme") == "Theme: auto"


# Actions: clicked, asked, done, and seen in Redis


def click(browser: Browser, text: str) -> None:
    from selenium.webdriver.common.by import By

    where = (By.XPATH, f"//main//*[self::a or self::button][contains(., {text!r})]")
    wait_until(lambda: browser.driver.find_elements(*where), SECONDS)
    browser.driver.find_element(*where).click()


def fail_jobs(connection: Redis, work_off: WorkOff, *texts: str) -> list[str]:
    ids = [Queue("bad", connection=connection).enqueue("tests.sample_jobs.fail_with", text).id for text in texts]
    work_off("bad")
    return ids


def test_failed_jobs_are_retried_by_one_and_by_filter(browser: Browser, connection: Redis, work_off: WorkOff) -> None:
    first, second, third = fail_jobs(connection, work_off, "no customer 1", "no customer 2", "no disk")
    browser.open(f"/jobs/{third}")
    browser.see("no disk")
    click(browser, "Retry")
    browser.see("Retry job")
    assert connection.llen("rq:queue:bad") == 0  # it only asked
    click(browser, "Retry")
    browser.see("is queued again")
    assert connection.lrange("rq:queue:bad", 0, -1) == [third.encode()]
    browser.open("/jobs?state=failed&error=customer")
    browser.see("no customer 2")
    click(browser, "Retry all that match")
    browser.see("Retry 2 failed jobs?")
    click(browser, "Retry 2 jobs")
    browser.see("2 failed jobs of 2 queued again")
    assert set(connection.lrange("rq:queue:bad", 0, -1)) == {each.encode() for each in (first, second, third)}
    assert [each.what for each in actions.read(connection)] == ["retry by filter", "retry by filter", "retry"]
    assert browser.complaints() == []


@pytest.mark.parametrize("scripts", [True, False])
def test_ticked_jobs_are_retried_and_cancelled(
    browser: Browser, connection: Redis, work_off: WorkOff, scripts: bool
) -> None:
    ids = fail_jobs(connection, work_off, "no customer 1", "no customer 2", "no disk")
    browser.command("Emulation.setScriptExecutionDisabled", value=not scripts)
    try:
        browser.open("/jobs?state=failed")
        for job_id in ids[:2]:
            browser.driver.find_element("css selector", f"input[value='{job_id}']").click()
        click(browser, "Retry the ticked")
        wait_until(lambda: "Retry 2 jobs?" in browser.driver.page_source, SECONDS)
        assert connection.llen("rq:queue:bad") == 0  # it only asked
        click(browser, "Retry 2 jobs")
        wait_until(lambda: "2 of 2 jobs queued again" in browser.driver.page_source, SECONDS)
        assert set(connection.lrange("rq:queue:bad", 0, -1)) == {each.encode() for each in ids[:2]}
        browser.open("/jobs?state=queued")
        if scripts:
            browser.driver.find_element("css selector", "[data-ticks]").click()
        else:
            for each in browser.driver.find_elements("css selector", "input[name='id']"):
                each.click()
        click(browser, "Cancel the ticked")
        click(browser, "Cancel 2 jobs")
        wait_until(lambda: "2 of 2 jobs cancelled" in browser.driver.page_source, SECONDS)
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)
    assert connection.llen("rq:queue:bad") == 0
    assert [each.what for each in actions.read(connection)] == ["cancel", "cancel", "retry", "retry"]
    assert browser.complaints() == []


def test_what_is_ticked_stays_ticked_while_the_list_changes(
    browser: Browser, connection: Redis, work_off: WorkOff
) -> None:
    [job_id] = fail_jobs(connection, work_off, "no customer 1")
    browser.open("/jobs?state=failed")
    browser.driver.find_element("css selector", f"input[value='{job_id}']").click()
    browser.ask("document.activeElement.blur()")
    fail_jobs(connection, work_off, "no disk")
    browser.see("no disk")
    assert browser.ask("Array.from(document.querySelectorAll('input[name=id]:checked'), e => e.value)") == [job_id]


def test_a_waiting_job_is_cancelled_without_a_script(browser: Browser, connection: Redis) -> None:
    job = sample_jobs.Plain.enqueue(number=7, connection=connection)
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(f"/jobs/{job.id}")
        click(browser, "Cancel")
        assert connection.llen("rq:queue:plain") == 1
        click(browser, "Cancel the job")
        wait_until(lambda: "1 job cancelled" in browser.driver.page_source, SECONDS)
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)
    assert connection.llen("rq:queue:plain") == 0
    assert connection.hget(f"rq:job:{job.id}", "status") == b"canceled"


def test_a_queue_is_paused_and_goes_on(browser: Browser, connection: Redis) -> None:
    sample_jobs.Plain.enqueue(number=7, connection=connection)
    browser.open("/queues")
    click(browser, "Pause")
    click(browser, "Pause the queue")
    browser.see("queue plain is paused")
    assert pausing.paused(connection) == {"plain"}
    click(browser, "Resume")
    click(browser, "Resume the queue")
    browser.see("queue plain goes on")
    assert pausing.paused(connection) == set()


def test_live_shows_the_budget_of_a_pool_on_its_host(browser: Browser, connection: Redis) -> None:
    busy(connection)
    with connection.pipeline() as pipeline:
        history_writer.write_pool(pipeline, a_pool("mail"), 600)
        pipeline.execute()
    register(connection, "p-2", "q", live=a_live("p-2", pool="mail"))
    browser.open("/live")
    browser.see(r"Budget of pool mail\s+192 of 600 MB used, 256 reserved, 1 job waits for room", "#hosts")
    assert browser.ask("document.querySelector('#hosts h3 + svg rect.accent').getAttribute('width')") == "32.0"
    assert browser.complaints() == []


def test_live_shows_the_longest_of_very_many_queues(browser: Browser, connection: Redis) -> None:
    for number in range(60):
        connection.sadd("rq:queues", f"rq:queue:q{number}")
        connection.rpush(f"rq:queue:q{number}", *range(number + 1))
    browser.open("/live")
    browser.see(r"\bq59\b", "#queues")
    assert browser.ask("document.querySelectorAll('#queues tr').length") == 20
    assert browser.text("#queues tr").split() == ["q59", "60", "0", "0", "0"]
    assert browser.ask("document.querySelectorAll('#problems tbody tr').length") <= 20


def test_rq_dashboard_fits_on_a_phone(browser: Browser, connection: Redis) -> None:
    busy(connection)
    browser.look(390)
    for path, shown in {
        "/rq/": r"Queued\sjobs",
        "/rq/0/view/jobs/q/failed/8/asc/1": "no customer|failed",
        f"/rq/0/view/job/{JOB}": "Enqueued at",
        "/rq/0/view/workers": "web-1-w1",
    }.items():
        browser.open(path)
        browser.see(shown, "body")
        assert not browser.ask("document.documentElement.scrollWidth > document.documentElement.clientWidth"), path
        covered = "(a, b) => !a || !b || a.getBoundingClientRect().bottom <= b.getBoundingClientRect().top + 1"
        parts = "(document.querySelector('p.intro'), document.querySelector('table'))"
        assert browser.ask(f"({covered}){parts}"), path
    assert browser.complaints() == []
    browser.look()
