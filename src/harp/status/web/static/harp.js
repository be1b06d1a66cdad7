// The status page's own script: plots, and a word about whether the page is live. Everything works without it.
"use strict";
(() => {
  const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const LENGTH = 720;
  const WINDOW = 600; // seconds that a plot shows at least
  const KINDS = {
    requests: {
      fields: ["requests", "errors"], colors: ["--one", "--bad"], fill: true,
      text: value => value === 0 ? "0" : value < 1 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0),
      reading: (a, b) => `${a} requests/s, ${b} failed`,
    },
    durations: {
      fields: ["p50", "p95"], colors: ["--one", "--two"], fill: false,
      text: value => value === 0 ? "0" : value < 0.01 ? `${(value * 1000).toFixed(1)} ms` : value < 1 ? `${(value * 1000).toFixed(0)} ms` : `${value.toFixed(1)} s`,
      reading: (a, b) => `half within ${a}, 95 % within ${b}`,
    },
  };
  const plots = [];

  function soft(color) { return `color-mix(in srgb, ${color} 14%, transparent)`; }

  class Plot {
    constructor(figure, points) {
      this.figure = figure;
      this.kind = KINDS[figure.dataset.plot];
      this.box = figure.querySelector(".canvas");
      this.line = figure.querySelector(".reading");
      this.data = ["times", ...this.kind.fields].map(field => [...points[field]]);
      this.draw();
    }
    draw() {
      const [muted, grid] = [style("--muted"), style("--line")];
      const axis = {
        stroke: muted, font: "12px system-ui, sans-serif", ticks: {show: false}, gap: 4, grid: {stroke: grid, width: 1},
      };
      const series = this.kind.fields.map((name, at) => {
        const color = style(this.kind.colors[at]);
        return {stroke: color, width: 1.75, spanGaps: true, points: {size: 4, fill: color}, fill: this.kind.fill && at === 0 ? soft(color) : undefined};
      });
      const options = {
        width: this.box.clientWidth, height: this.box.clientHeight, padding: [8, 18, 0, 0],
        cursor: {y: false, points: {size: 6}, drag: {x: false, y: false}},
        legend: {show: false}, series: [{}, ...series],
        scales: {x: {range: (u, low, high) => [Math.min(low, high - WINDOW), high]}, y: {range: (u, low, high) => [0, high > 0 ? high * 1.15 : 1]}},
        axes: [
          {...axis, size: 26, space: 70, grid: {show: false}, values: (u, splits) => splits.map(at => new Date(at * 1000).toTimeString().slice(0, 5))},
          {...axis, size: 54, space: 36, values: (u, splits) => splits.map(this.kind.text)},
        ],
        hooks: {setCursor: [u => this.read(u.cursor.idx)]},
      };
      const old = this.chart;
      this.box.replaceChildren();
      this.chart = new uPlot(options, this.data, this.box);
      this.chart.root.querySelector("canvas").setAttribute("aria-hidden", "true");
      if (old) old.destroy();
    }
    read(at) {
      const values = this.data.slice(1).map(list => list[at]);
      const known = at != null && values.every(value => value != null);
      const time = at == null ? "" : `${new Date(this.data[0][at] * 1000).toTimeString().slice(0, 8)}: `;
      this.line.textContent = known ? time + this.kind.reading(...values.map(this.kind.text)) : "\u00a0";
    }
    add(points) {
      const last = this.data[0].at(-1);
      points.times.forEach((time, at) => {
        if (last !== undefined && time <= last) return;
        this.data[0].push(time);
        this.kind.fields.forEach((field, place) => this.data[place + 1].push(points[field][at]));
      });
      while (this.data[0].length > LENGTH) this.data.forEach(list => list.shift());
      this.chart.setData(this.data);
      this.figure.dataset.points = this.data[0].length;
    }
    resize() { this.chart.setSize({width: this.box.clientWidth, height: this.box.clientHeight}); }
  }

  async function begin() {
    const figures = [...document.querySelectorAll("[data-plot]")];
    if (!figures.length || !window.uPlot) return;
    const answer = await fetch(`/plot?app=${encodeURIComponent(figures[0].dataset.app)}`);
    if (!answer.ok) return;
    const points = await answer.json();
    for (const figure of figures) plots.push(new Plot(figure, points));
    for (const plot of plots) plot.figure.dataset.points = plot.data[0].length;
    let waiting = 0;
    new ResizeObserver(() => {
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(() => plots.forEach(plot => plot.resize()));
    }).observe(document.getElementById("plots"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach(plot => plot.draw()));
  }

  function say(text) {
    const place = document.getElementById("streaming");
    if (place && place.textContent !== text) place.textContent = text;
  }

  document.addEventListener("DOMContentLoaded", () => {
    const live = document.getElementById("live");
    if (!live) return;
    live.addEventListener("plot", event => {
      const points = JSON.parse(event.detail.data);
      plots.forEach(plot => plot.add(points));
    });
    live.addEventListener("htmx:sse:after:connection", () => say("live"));
    live.addEventListener("htmx:sse:after:message", () => say("live"));
    live.addEventListener("htmx:sse:error", () => say("not live: HaRP does not answer"));
    begin();
  });
})();
