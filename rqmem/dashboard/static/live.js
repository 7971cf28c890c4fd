// The page "Live": one look a second, by server-sent events or by asking. Everything from Redis is set as text.
(function () {
  "use strict";
  const root = document.getElementById("live");
  const body = document.getElementById("workers");
  const status = document.getElementById("status");
  const SECONDS = 900, MOST = 20;   // of queues and problems, which have pages of their own
  const rows = new Map();      // worker -> its row
  const memory = new Map();    // worker -> Map of second -> [usage, ceiling]
  let source = null, timer = 0, etag = "", heard = 0, lastSort = -5000, newest = 0, shown = SECONDS;

  const mb = (value) => value >= 99.95 ? Math.round(value).toLocaleString("en") : String(Math.round(value * 10) / 10);
  const span = (seconds) => seconds < 60 ? Math.round(seconds) + " s" : seconds < 3600 ? Math.round(seconds / 60) + " min"
    : seconds < 172800 ? Math.round(seconds / 3600) + " h" : Math.round(seconds / 86400) + " d";

  const short = (id) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-|$)/.test(id) ? id.slice(0, 8) + id.slice(36)
    : id.length <= 24 ? id : id.slice(0, 12) + "…" + id.slice(-11);

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function set(node, text) { if (node.textContent !== text) node.textContent = text; }

  function colours() {
    const probe = element("span");
    document.body.append(probe);
    const of = (name) => { probe.style.color = "var(--" + name + ")"; return getComputedStyle(probe).color; };
    const found = { accent: of("accent"), soft: of("accent-soft"), bad: of("bad") };
    probe.remove();
    return found;
  }
  let paint = colours();

  // One row a worker.
  const seen = new IntersectionObserver(function (entries) {
    for (const each of entries) { const row = each.target.row; row.visible = each.isIntersecting; if (row.visible) draw(row); }
  });

  function svgBar(ceiling) {
    const make = (name, attributes) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const key in attributes) made.setAttribute(key, attributes[key]);
      return made;
    };
    const svg = make("svg", { class: "bar", viewBox: ceiling ? "0 0 110 10" : "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
    const fill = make("rect", { height: 10, width: 0, rx: 1 });
    svg.append(make("rect", { class: "track", width: 110, height: 10, rx: 1 }), fill);
    if (ceiling) svg.append(make("line", { class: "tick", x1: 100, x2: 100, y1: 0, y2: 10 }));
    return [svg, fill];
  }

  const mood = (share) => share >= 0.95 ? "bad" : share >= 0.8 ? "warning" : "accent";
  function bar(share) {
    const [svg, fill] = svgBar(false);
    fill.setAttribute("width", Math.min(100, 100 * share).toFixed(1));
    fill.setAttribute("class", mood(share));
    return svg;
  }

  function makeRow(name) {
    const tr = element("tr"), row = { tr: tr, name: name, share: -1, visible: false, plot: null };
    tr.setAttribute("role", "row");
    const cell = (tag, role, className) => { const made = element(tag, className); made.setAttribute("role", role); tr.append(made); return made; };
    const worker = cell("th", "rowheader"), job = cell("td", "cell", "job"), usage = cell("td", "cell", "usage"), chart = cell("td", "cell", "chart");
    worker.scope = "row";
    row.workerName = element("span", "", name); row.workerSub = element("span", "sub");
    row.breaches = element("span", "pill bad");
    worker.append(row.workerName, " ", row.breaches, row.workerSub);
    row.job = element("a"); row.jobSub = element("span", "sub");
    job.append(row.job, row.jobSub);
    const [svg, fill] = svgBar(true);
    row.fill = fill; row.usage = element("span", "small");
    usage.append(svg, row.usage);
    row.chart = element("div"); row.chart.setAttribute("role", "img");
    chart.append(row.chart);
    tr.row = row;
    seen.observe(tr);
    rows.set(name, row);
    body.append(tr);
    return row;
  }

  function draw(row) {
    const points = memory.get(row.name);
    if (!points || !window.uPlot) return;
    const width = row.chart.parentNode.clientWidth - 14;
    if (!width || !newest) return;
    const xs = [], usage = [], ceiling = [];
    let top = 0, known = 0;
    for (let at = newest - shown + 1; at <= newest; at++) {
      const point = points.get(at), runs = point && point[1] > 0;
      if (point) known = at;
      const none = !point && at - known < 6 ? undefined : null;   // a second that nobody has told of is no gap
      xs.push(at);
      usage.push(runs ? point[0] : none);
      ceiling.push(runs ? point[1] : none);
      if (runs) top = Math.max(top, point[0], point[1]);
    }
    row.chart.hidden = !top;
    if (!row.plot) {
      row.plot = new uPlot({
        width: width, height: 48, legend: { show: false }, cursor: { show: false }, padding: [3, 0, 2, 0],
        axes: [{ show: false }, { show: false }],
        scales: { x: { time: false, range: () => [newest - shown + 1, newest] }, y: { range: () => [0, (row.top || 1) * 1.04] } },
        series: [{}, { stroke: () => paint.accent, fill: () => paint.soft, width: 1.5, points: { show: false } },
          { stroke: () => paint.bad, width: 1, dash: [4, 3], paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } }],
      }, [[newest], [null], [null]], row.chart);
    }
    row.top = top;
    if (row.width !== width) { row.width = width; row.plot.setSize({ width: width, height: 48 }); }
    row.plot.setData([xs, usage, ceiling]);
    row.chart.setAttribute("aria-label", top ? "Memory of the last 15 minutes, the highest " +
      mb(Math.max.apply(null, usage.map((each) => each || 0))) + " MB" : "No job in the last 15 minutes");
  }

  function showRow(worker) {
    const row = rows.get(worker.name) || makeRow(worker.name), job = worker.job;
    const what = worker.kind === "silent" ? "not heard of" : worker.kind === "rq" ? "rq's own worker: not watched" : "";
    set(row.breaches, worker.breaches ? worker.breaches + (worker.breaches === 1 ? " breach" : " breaches") : "");
    row.breaches.hidden = !worker.breaches;
    set(row.workerSub, [worker.host, worker.jobs.toLocaleString("en") + (worker.jobs === 1 ? " job" : " jobs"), what].filter(Boolean).join(" · "));
    row.tr.classList.toggle("silent", worker.kind === "silent");
    if (!job) {
      row.share = -1;
      set(row.job, worker.state === "busy" ? (worker.job_id || "busy") : worker.state);
      row.job.removeAttribute("href");
      set(row.jobSub, worker.queues.join(", "));
      set(row.usage, worker.kind === "rqmem" && worker.default_ceiling_mb ? "ceiling " + mb(worker.default_ceiling_mb) + " MB" : "–");
      row.fill.setAttribute("width", 0);
    } else {
      row.share = (job.usage_percentage || 0) / 100;
      set(row.job, job.job_type.split(".").pop());
      row.job.title = job.job_type;
      row.job.href = root.dataset.jobs + encodeURIComponent(job.job_id);
      const items = !job.items_done ? "" : job.items_total
        ? job.items_done.toLocaleString("en") + " of " + job.items_total.toLocaleString("en") + " items"
        : job.items_done.toLocaleString("en") + " items";
      const rate = job.items_total && job.items_done && job.run_seconds > 1 ? job.run_seconds * (job.items_total / job.items_done - 1) : 0;
      set(row.jobSub, [short(job.job_id), span(job.run_seconds), job.operation, items, rate > 0 ? span(rate) + " left" : ""].filter(Boolean).join(" · "));
      set(row.usage, mb(job.usage_mb) + " of " + mb(job.ceiling_mb) + " MB, " + Math.round(100 * row.share) + " %");
      row.fill.setAttribute("width", Math.min(110, 100 * row.share).toFixed(1));
      row.fill.setAttribute("class", mood(row.share));
    }
    if (row.visible) draw(row);
  }

  function sort(now) {
    if (now - lastSort < 5000 || body.matches(":hover") || body.contains(document.activeElement)) return;
    lastSort = now;
    const wanted = Array.from(rows.values()).sort((a, b) => b.share - a.share || (a.name < b.name ? -1 : 1));
    wanted.forEach((row, i) => { if (body.children[i] !== row.tr) body.insertBefore(row.tr, body.children[i] || null); });
  }

  function table(id, made) { document.querySelector(id).replaceChildren(...made); }
  function queue(each) {
    const jobs = (state, text) => {
      const made = element("a", "", text);
      made.href = root.dataset.jobs.slice(0, -1) + "?state=" + state + "&queue=" + encodeURIComponent(each.name);
      return made;
    };
    const count = (state, number) => number ? jobs(state, number.toLocaleString("en")) : 0;
    const made = tr([jobs("queued", each.name), count("queued", each.queued), count("started", each.started), count("scheduled", each.scheduled), count("failed", each.failed)], true);
    made.querySelectorAll("td").forEach((cell) => cell.classList.add("num"));
    return made;
  }

  function tr(cells, first) {
    const made = element("tr");
    cells.forEach((each, i) => {
      const cell = element(i === 0 && first ? "th" : "td", typeof each === "number" ? "num" : "");
      if (i === 0 && first) cell.scope = "row";
      if (each instanceof Node) cell.append(each);
      else cell.textContent = typeof each === "number" ? each.toLocaleString("en") : each;
      made.append(cell);
    });
    return made;
  }

  function nothing(text, columns) {
    const made = element("tr"), cell = element("td", "empty", text);
    cell.colSpan = columns;
    made.append(cell);
    return made;
  }

  function advised(problem) {
    const text = /^[a-z]+[ ,:]/.test(problem.text) ? problem.text.charAt(0).toUpperCase() + problem.text.slice(1) : problem.text;   // no name
    const made = element("div", "", text + ".");
    const sub = element("span", "sub");
    sub.append(problem.advice.startsWith("rqmem ") ? element("code", "", problem.advice) : problem.advice);
    made.append(sub);
    return made;
  }

  function showHosts(look) {
    const made = look.hosts.map((host) => {
      const card = element("section", "host"), title = element("h2");
      title.append(element("span", "", host.name || "unknown host"), element("span", "faint small", host.busy + " of " + host.workers + " busy"));
      card.append(title);
      if (host.total_mb) {
        const used = host.total_mb - (host.available_mb || 0);
        card.append(bar(used / host.total_mb), element("p", "small", mb(used) + " of " + mb(host.total_mb) + " MB used"));
      }
      card.append(element("p", "small", "jobs " + mb(host.usage_mb) + " MB, workers themselves " + mb(host.own_memory_mb) + " MB"));
      if (typeof host.pressure_some_percentage === "number") card.append(element("p", "small faint", "memory pressure " + host.pressure_some_percentage.toFixed(1) + " %"));
      for (const pool of look.pools) if (pool.host === host.name) {
        const waiting = pool.waiting ? ", " + pool.waiting.toLocaleString("en") + (pool.waiting === 1 ? " job waits" : " jobs wait") + " for room" : "";
        card.append(element("h3", "", "Budget of pool " + pool.name), bar(pool.usage_mb / pool.budget_mb),
          element("p", "small", mb(pool.usage_mb) + " of " + mb(pool.budget_mb) + " MB used, " + mb(pool.reserved_mb) + " reserved" + waiting));
        if (pool.paused) card.append(element("p", "small bad", "It takes no jobs: " + pool.paused));
      }
      return card;
    });
    document.getElementById("hosts").replaceChildren(...made);
  }

  function showMinutes() {
    if (!document.getElementById("numbers").open) return;
    const head = element("tr"), minutes = Array.from({ length: 15 }, (_, i) => newest - 60 * (15 - i) + 1);
    head.append(element("th", "", "Worker"), ...minutes.map((at) => element("th", "num", new Date(1000 * at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }))));
    head.querySelectorAll("th").forEach((each) => { each.scope = "col"; });
    const lines = Array.from(memory, ([name, points]) => tr([name, ...minutes.map((from) => {
      let top = null;
      for (let at = from; at < from + 60; at++) { const point = points.get(at); if (point && point[1]) top = Math.max(top || 0, point[0]); }
      return top === null ? "–" : Math.round(top);
    })], true));
    const thead = element("thead"), tbody = element("tbody");
    thead.append(head); tbody.append(...lines);
    document.getElementById("minutes").replaceChildren(thead, tbody);
  }

  function show(look) {
    if (look.away) { said("Redis does not answer: " + look.away.replace(/\.$/, "") + ". You see what was known before. This page continues by itself.", "off"); return; }
    newest = Math.floor(Date.parse(look.at) / 1000);
    for (const name in look.samples) {
      const points = memory.get(name) || new Map();
      memory.set(name, points);
      for (const [at, usage, ceiling] of look.samples[name]) { points.set(at, [usage, ceiling]); newest = Math.max(newest, at); }
      for (const at of points.keys()) if (at <= newest - SECONDS) points.delete(at);
    }
    let oldest = newest;   // a worker that has just begun fills its row all the same
    for (const points of memory.values()) for (const [at, point] of points) if (point[1] && at < oldest) oldest = at;
    shown = Math.min(SECONDS, Math.max(60, Math.ceil((newest - oldest + 1) / 60) * 60));
    set(document.getElementById("h-chart"), shown > 60 ? "Last " + shown / 60 + " minutes" : "Last minute");
    const names = new Set(look.workers.map((each) => each.name));
    for (const [name, row] of rows) if (!names.has(name)) { seen.unobserve(row.tr); if (row.plot) row.plot.destroy(); row.tr.remove(); rows.delete(name); memory.delete(name); }
    look.workers.forEach(showRow);
    sort(performance.now());
    document.getElementById("nobody").hidden = look.workers.length > 0;
    document.querySelector("table.live").hidden = look.workers.length === 0;
    document.getElementById("numbers").hidden = look.workers.length === 0;
    const running = look.workers.filter((each) => each.job), near = running.filter((each) => each.job.usage_percentage >= 80);
    const fullest = running.reduce((best, each) => !best || each.job.usage_percentage > best.job.usage_percentage ? each : best, null);
    set(document.getElementById("answer"), !look.workers.length ? "There is no worker." : !fullest ? "None: no job runs at the moment."
      : (near.length ? near.length + (near.length === 1 ? " is" : " are") + " above 80\u00a0%. " : "None above 80\u00a0%. ") +
        "The fullest, " + fullest.name + ", is at " + Math.round(fullest.job.usage_percentage) + "\u00a0%.");
    showHosts(look);
    const jobs = (each) => each.queued + each.started + each.scheduled + each.failed;
    const queues = look.queues.length > MOST ? look.queues.sort((a, b) => jobs(b) - jobs(a)).slice(0, MOST) : look.queues;
    table("#queues", queues.length ? queues.map(queue) : [nothing("No queue has had a job yet.", 5)]);
    document.getElementById("problems").hidden = !look.problems.length;
    table("#problems tbody", look.problems.slice(0, MOST).map((each) => tr([element("span", "pill " + (each.mark === "problem" ? "bad" : "warning"), each.mark), advised(each)])));
    showMinutes();
    document.dispatchEvent(new CustomEvent("rqmem-rows", { detail: root }));
    said("live, " + new Date(look.at).toLocaleTimeString(), "on");
  }

  function said(text, state) {
    status.className = "status " + state;
    set(status, state === "off" ? "not live" : text);   // the notice says why
    const notice = document.getElementById("notice");
    set(notice, state === "off" ? text : "");
    notice.hidden = state !== "off";
  }

  // Transport.
  async function history() {
    const answer = await fetch(root.dataset.history);
    if (!answer.ok) return;
    const told = await answer.json();
    for (const name in told.workers) {
      const points = memory.get(name) || new Map(), { usage_mb: usage, ceiling_mb: changes } = told.workers[name];
      memory.set(name, points);
      let ceiling = 0, next = 0;
      usage.forEach((used, i) => {
        while (next < changes.length && changes[next][0] <= i) ceiling = changes[next++][1];
        if (used !== null && !points.has(told.begin + i)) points.set(told.begin + i, [used, ceiling]);
      });
    }
  }

  function take(text) { heard = Date.now(); show(JSON.parse(text)); }
  const wait = (seconds, then) => { clearTimeout(timer); timer = setTimeout(then, 1000 * seconds); };

  async function poll() {
    if (document.hidden) return;
    try {
      const answer = await fetch(root.dataset.live, { headers: etag ? { "If-None-Match": etag } : {}, redirect: "manual", cache: "no-store" });
      if (answer.status === 200) { etag = answer.headers.get("ETag") || ""; take(await answer.text()); }
      else if (answer.status === 401 || answer.type === "opaqueredirect") said("You are logged out: load this page again.", "off");
      else if (answer.status !== 304) said("The dashboard answers with an error (" + answer.status + "). This page continues by itself.", "off");
    } catch (error) {
      said("The dashboard does not answer. This page continues by itself.", "off");
    }
    wait(1, poll);
  }

  function listen() {
    source = new EventSource(root.dataset.events);
    source.onmessage = (event) => take(event.data);
    source.onerror = () => {
      const refused = source.readyState === EventSource.CLOSED;
      stop();
      if (refused) poll();   // too many listen, or the dashboard is mounted elsewhere
      else { said("The dashboard does not answer. This page continues by itself.", "off"); wait(2, start); }
    };
  }

  function stop() {
    clearTimeout(timer);
    if (source) source.close();
    source = null;
  }

  async function start() {
    stop();
    if (document.hidden) return;
    try { await history(); } catch (error) { /* the looks say what is wrong */ }
    if (root.dataset.events && window.EventSource) listen(); else poll();
  }

  document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); else start(); });
  addEventListener("pagehide", stop);
  addEventListener("pageshow", (event) => { if (event.persisted) start(); });
  const redraw = () => { paint = colours(); rows.forEach((row) => { if (row.visible && row.plot) row.plot.redraw(); }); };
  document.addEventListener("rqmem-theme", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("resize", () => rows.forEach((row) => { if (row.visible) draw(row); }));
  document.getElementById("numbers").addEventListener("toggle", showMinutes);
  start();
})();
