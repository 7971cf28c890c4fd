// Charts beside tables: <div class="plot" data-chart='{"x": [...], "y": [...], "unit": "MB", "ceiling": 256}'>; "bars": true for counts.
(function () {
  "use strict";
  const drawn = new Set();

  function colours() {
    const probe = document.createElement("span");
    document.body.append(probe);
    const of = (name) => { probe.style.color = "var(--" + name + ")"; return getComputedStyle(probe).color; };
    const found = { accent: of("accent"), soft: of("accent-soft"), bad: of("bad"), line: of("line"), faint: of("faint"), good: of("good") };
    probe.remove();
    return found;
  }
  let paint = colours();

  const span = (seconds, longest) => longest < 1 ? +(1000 * seconds).toFixed(longest < 0.01 ? 1 : 0) + " ms" : seconds < 2 ? +seconds.toFixed(2) + " s" : seconds < 120 ? +seconds.toFixed(1) + " s" : seconds < 7200 ? Math.round(seconds / 60) + " min" : Math.round(seconds / 3600) + " h";
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  const date = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

  function draw(box) {
    const told = JSON.parse(box.dataset.chart);
    const axis = { stroke: () => paint.faint, grid: { stroke: () => paint.line, width: 1 }, ticks: { stroke: () => paint.line, width: 1 } };
    const series = [{}], data = [told.x];
    const line = (values, more) => { data.push(values); series.push(Object.assign({ width: 1.5, points: { show: told.x.length < 40, size: 4 } }, more)); };
    const width = told.x.length > 1 ? Math.min(...told.x.slice(1).map((each, i) => each - told.x[i])) : told.bars || 1, longest = Math.max(...told.x);
    if (told.bars) line(told.y, { stroke: () => paint.accent, fill: () => paint.accent, width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.8, 40] }) });
    else line(told.y, { stroke: () => paint.accent, fill: () => paint.soft });
    if (told.before) line(told.before, { stroke: () => paint.faint, dash: [3, 3], points: { show: false } });
    if (told.ceiling) line(told.x.map((_, i) => Array.isArray(told.ceiling) ? told.ceiling[i] : told.ceiling), { stroke: () => paint.bad, width: 1, dash: [5, 4], points: { show: false } });
    if (told.breach) {
      const flag = told.y.indexOf(Math.max(...told.y));
      line(told.y.map((each, i) => i === flag ? each : null), { stroke: () => paint.bad, width: 0, points: { show: true, size: 9, fill: () => paint.bad } });
    }
    const numbers = data.slice(1).flat().filter((each) => each !== null), top = Math.max(1, ...numbers) * 1.08;
    const height = box.classList.contains("low") ? 130 : 210;
    const plot = new uPlot({
      width: box.clientWidth, height: height, legend: { show: false }, padding: [6, 20, 0, 0],
      cursor: { show: false },
      hooks: { draw: [(self) => {   // where something began
        self.ctx.save();
        self.ctx.strokeStyle = paint.good;
        self.ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
        for (const at of told.marks || []) {
          const x = Math.round(self.valToPos(at, "x", true));
          self.ctx.beginPath();
          self.ctx.moveTo(x, self.bbox.top);
          self.ctx.lineTo(x, self.bbox.top + self.bbox.height);
          self.ctx.stroke();
        }
        self.ctx.restore();
      }] },
      scales: { x: { time: false, range: told.bars ? (_, low, high) => [low - 0.7 * width, high + 0.7 * width] : undefined }, y: { range: [0, top] } },
      axes: [Object.assign({ values: (_, ticks) => ticks.map((each) => told.dates ? date.format(new Date(1000 * each)) : told.clock ? clock.format(new Date(1000 * each)) : span(each, longest)), size: 26, space: 70 }, told.dates ? { incrs: [1, 2, 3, 5, 7, 14].map((each) => 86400 * each) } : told.clock ? { incrs: [1, 2, 3, 6, 12, 24].map((each) => 3600 * each) } : {}, axis),
        Object.assign({ values: (_, ticks) => ticks.map((each) => each.toLocaleString("en") + (told.unit ? " " + told.unit : "")), size: told.unit ? 68 : 52, space: 26 }, axis)],
      series: series,
    }, data, box);
    drawn.add({ box: box, plot: plot, height: height });
  }

  function all(root) { root.querySelectorAll("[data-chart]").forEach((box) => { if (!box.firstChild) draw(box); }); }
  function redraw() { paint = colours(); drawn.forEach((each) => each.box.isConnected ? each.plot.redraw() : drawn.delete(each)); }
  all(document);
  document.addEventListener("rqmem-part", (event) => all(event.detail));
  document.addEventListener("rqmem-theme", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("resize", () => drawn.forEach((each) => each.plot.setSize({ width: each.box.clientWidth, height: each.height })));
})();
