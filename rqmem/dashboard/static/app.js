// Of every page: times in the viewer's zone, the theme, and parts that are read again while the page is seen.
(function () {
  "use strict";
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

  function ago(seconds) {
    const past = Math.abs(seconds);
    const [value, unit] = past < 60 ? [past, "s"] : past < 3600 ? [past / 60, "min"]
      : past < 172800 ? [past / 3600, "h"] : [past / 86400, "d"];
    const text = Math.floor(value) + " " + unit;
    return seconds < 0 ? "in " + text : text + " ago";
  }

  function tell(element) {
    const at = new Date(element.dateTime);
    if (isNaN(at)) return;
    const form = element.dataset.form;
    element.title = full.format(at);
    element.textContent = form === "ago" ? ago((Date.now() - at) / 1000)
      : form === "date" ? day.format(at)
      : Date.now() - at < 43200000 && at <= Date.now() ? clock.format(at) : day.format(at) + ", " + clock.format(at);
  }

  function tellTimes(root) { root.querySelectorAll("time[datetime]").forEach(tell); }

  // Theme: auto, light, dark.
  const button = document.getElementById("theme");
  function showTheme() { button.textContent = "Theme: " + (document.documentElement.dataset.theme || "auto"); }
  if (button) {
    button.hidden = false;
    showTheme();
    button.addEventListener("click", function () {
      const next = { auto: "light", light: "dark", dark: "" }[document.documentElement.dataset.theme || "auto"];
      if (next) document.documentElement.dataset.theme = next;
      else delete document.documentElement.dataset.theme;
      try {
        if (next) localStorage.setItem("rqmem-theme", next);
        else localStorage.removeItem("rqmem-theme");
      } catch (error) { /* forbidden: then for this page only */ }
      showTheme();
      document.dispatchEvent(new Event("rqmem-theme"));
    });
  }

  // Tick boxes: one in the head ticks all below it.
  function showTicks(root) { root.querySelectorAll("[data-ticks]").forEach(function (each) { each.hidden = false; }); }
  document.addEventListener("change", function (event) {
    if (!event.target.dataset.ticks) return;
    event.target.form.querySelectorAll('input[name="' + event.target.dataset.ticks + '"]').forEach(function (each) {
      each.checked = event.target.checked;
    });
  });

  // Tables: on a small screen, one that does not fit shows each row as a card, its cells with the names of their columns.
  const small = matchMedia("(max-width: 900px)");
  const ROLES = [["table", "table"], ["thead, tbody", "rowgroup"], ["tr", "row"], ["thead th", "columnheader"], ["tbody th", "rowheader"], ["td", "cell"]];

  function fit(box) {
    const table = box.querySelector("table");
    if (!table || !small.matches && !table.classList.contains("cards")) return;
    table.classList.remove("cards");
    if (!small.matches || box.scrollWidth <= box.clientWidth + 1) return;
    const names = Array.from(table.querySelectorAll("thead tr > *"), function (every) { return every.textContent.replace(" ▾", ""); });
    table.querySelectorAll("tbody tr").forEach(function (row) {
      Array.from(row.children).forEach(function (cell, i) { cell.dataset.name = names[i] || "";
        cell.classList.toggle("none", cell.textContent.trim() === "–"); });
    });
    ROLES.forEach(function (each) {   // a table that is displayed as blocks is no table any more to a screen reader
      (each[0] === "table" ? [table] : table.querySelectorAll(each[0])).forEach(function (every) { every.setAttribute("role", each[1]); });
    });
    table.classList.add("cards");
  }

  function fitAll(root) {
    if (root.matches && root.matches(".scroll")) fit(root);
    root.querySelectorAll(".scroll").forEach(fit);
  }

  // Parts: <main data-refresh="5"> has elements with data-part; those that changed are replaced.
  const main = document.getElementById("main");
  const notice = document.getElementById("notice");
  const shown = new Map();
  function parts(root) { return root.querySelectorAll("[data-part]"); }
  function remember() { parts(document).forEach(function (each) { shown.set(each.dataset.part, each.outerHTML); }); }

  function say(text) {
    if (!notice) return;
    if (notice.textContent !== text) notice.textContent = text;
    notice.hidden = !text;
  }

  function isUsed(element) {
    const selection = getSelection();
    return element.contains(document.activeElement)
      || (!selection.isCollapsed && selection.anchorNode && element.contains(selection.anchorNode));
  }

  function replace(fresh) {
    const present = new Set();
    parts(fresh).forEach(function (each) {
      const name = each.dataset.part, old = document.querySelector('[data-part="' + CSS.escape(name) + '"]');
      present.add(name);
      if (!old) { location.reload(); return; }
      if (shown.get(name) === each.outerHTML || isUsed(old)) return;
      shown.set(name, each.outerHTML);
      const open = Array.from(old.querySelectorAll("details"), function (every) { return every.open; });
      const ticked = new Set(Array.from(old.querySelectorAll("input[name]:checked"), function (every) { return every.value; }));
      each.querySelectorAll("input[type=checkbox][name]").forEach(function (every) { every.checked = ticked.has(every.value); });
      each.querySelectorAll("details").forEach(function (every, i) { if (open[i] !== undefined) every.open = open[i]; });
      const ours = document.importNode(each, true);
      old.replaceWith(ours);
      tellTimes(ours);
      showTicks(ours);
      fitAll(ours);
      document.dispatchEvent(new CustomEvent("rqmem-part", { detail: ours }));
    });
    parts(document).forEach(function (each) { if (!present.has(each.dataset.part)) each.remove(); });
    main.dataset.refresh = fresh.getElementById("main").dataset.refresh || "";
  }

  async function refresh() {
    let text = "";
    try {
      const answer = await fetch(location.href, { headers: { "X-Refresh": "1" }, redirect: "manual" });
      if (answer.type === "opaqueredirect" || answer.status === 401) text = "You are logged out: load this page again.";
      else if (answer.status === 503) text = "Redis does not answer. You see what was known before. This page tries again by itself.";
      else if (!answer.ok) text = "The dashboard answers with an error (" + answer.status + "). This page tries again by itself.";
      else replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch (error) {
      text = "The dashboard does not answer. You see what was known before. This page tries again by itself.";
    }
    say(text);
  }

  async function loop() {
    for (;;) {
      const seconds = Number(main.dataset.refresh);
      if (!seconds) return;
      await new Promise(function (done) { setTimeout(done, 1000 * seconds); });
      if (document.hidden) {
        await new Promise(function (done) { document.addEventListener("visibilitychange", done, { once: true }); });
      }
      await refresh();
    }
  }

  if (main) {
    remember();
    tellTimes(document);
    showTicks(document);
    fitAll(document);
    small.addEventListener("change", function () { fitAll(document); });
    addEventListener("resize", function () { fitAll(document); });
    document.addEventListener("rqmem-rows", function (event) { fitAll(event.detail); });
    document.addEventListener("toggle", function (event) { fitAll(event.target); }, true);   // what was closed had no size
    setInterval(function () { document.querySelectorAll('time[data-form="ago"]').forEach(tell); }, 5000);
    loop();
    if (main.dataset.retry) setTimeout(function () { location.reload(); }, 1000 * main.dataset.retry);
  }
})();
