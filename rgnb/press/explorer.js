// The explorer page: rank and drift by depth and the CKA matrix, drawn from the data that the page carries.
// The choice lives in the address after #, so that a link opens the same view.
(() => {
  const root = document.getElementById("explorer-app");
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const SVG = root.querySelector("svg").namespaceURI;
  const W = 430, H = 270, M = { left: 46, right: 10, top: 12, bottom: 40 };

  const controls = {};
  for (const [name, { label, options }] of Object.entries(data.choices)) {
    const box = document.createElement("label");
    box.textContent = label + " ";
    const select = document.createElement("select");
    select.name = name;
    for (const option of options) select.add(new Option(option.label, option.value));
    box.append(select);
    root.querySelector(".explorer-controls").append(box);
    controls[name] = select;
    select.addEventListener("change", () => {
      history.replaceState(null, "", "#" + new URLSearchParams(choice()));
      draw();
    });
  }

  const choice = () => Object.fromEntries(Object.entries(controls).map(([name, select]) => [name, select.value]));

  function readAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const [name, select] of Object.entries(controls)) {
      const value = asked.get(name);
      if (value !== null && [...select.options].some((o) => o.value === value)) select.value = value;
    }
    draw();
  }

  function element(parent, tag, attributes, text) {
    const e = document.createElementNS(SVG, tag);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    if (text !== undefined) e.textContent = text;
    parent.append(e);
    return e;
  }

  function panel(name, description) {
    const svg = root.querySelector(`[data-figure="${name}"] svg`);
    svg.replaceChildren();
    svg.setAttribute("aria-label", description);
    return svg;
  }

  const finite = (values) => values.filter((v) => v !== null);
  // Where a seed has no value there is no mean.
  const whole = (values) => finite(values).length === values.length;
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

  // One value of t for 95 % two-sided intervals by degrees of freedom, from the page's data.
  function interval(v) {
    const n = v.length, m = mean(v);
    if (n < 2) return [m, m];
    const sd = Math.sqrt(v.reduce((a, x) => a + (x - m) ** 2, 0) / (n - 1));
    const half = (data.t[n - 2] * sd) / Math.sqrt(n);
    return [m - half, m + half];
  }

  function ticks(top) {
    const raw = top / 5, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= raw);
    return Array.from({ length: Math.floor(top / step) + 1 }, (_, i) => i * step);
  }

  // series: [{ rows: seeds x points, style }]
  function lines(name, series, labels, ylabel, description) {
    const svg = panel(name, description);
    const all = finite(series.flatMap((s) => s.rows.flat()));
    if (!all.length) {
      element(svg, "text", { x: W / 2, y: H / 2, class: "explorer-note" }, "no value for this choice");
      return;
    }
    const top = Math.max(...all) * 1.06, n = labels.length;
    const x = (i) => M.left + ((W - M.left - M.right) * (i + 0.3)) / (n - 0.4);
    const y = (v) => H - M.bottom - ((H - M.top - M.bottom) * v) / top;
    for (const t of ticks(top)) {
      element(svg, "line", { x1: M.left, x2: W - M.right, y1: y(t), y2: y(t), class: "explorer-grid" });
      element(svg, "text", { x: M.left - 6, y: y(t) + 4, class: "explorer-tick explorer-right" }, +t.toPrecision(3));
    }
    labels.forEach((label, i) => element(svg, "text", { x: x(i), y: H - M.bottom + 16, class: "explorer-tick" }, label));
    element(svg, "text", { x: (W + M.left) / 2, y: H - 6, class: "explorer-label" }, n < data.depths ? "transition" : "depth");
    element(svg, "text", { x: 12, y: H / 2, class: "explorer-label", transform: `rotate(-90 12 ${H / 2})` }, ylabel);
    const path = (values) => {
      let d = "", pen = "M";
      values.forEach((v, i) => {
        if (v === null || Number.isNaN(v)) pen = "M";
        else { d += `${pen}${x(i).toFixed(1)},${y(Math.max(v, 0)).toFixed(1)}`; pen = "L"; }
      });
      return d;
    };
    for (const { rows, style } of series) {
      const columns = labels.map((_, i) => rows.map((r) => r[i]));
      const bounds = columns.map((c) => (whole(c) ? interval(c) : null));
      const known = bounds.map((b, i) => [b, i]).filter(([b]) => b);
      const clip = (v) => Math.min(Math.max(v, 0), top);
      const edge = (k) => known.map(([b, i]) => `${x(i).toFixed(1)},${y(clip(b[k])).toFixed(1)}`);
      element(svg, "polygon", { points: [...edge(0), ...edge(1).reverse()].join(" "), class: `explorer-band ${style}` });
      for (const row of rows) element(svg, "path", { d: path(row), class: `explorer-seed ${style}` });
      const means = columns.map((c) => (whole(c) ? mean(c) : null));
      element(svg, "path", { d: path(means), class: `explorer-mean ${style}` });
    }
  }

  // Blue to yellow, equal steps in lightness (after cividis).
  const stops = [[0, 32, 77], [64, 78, 107], [124, 123, 120], [186, 174, 108], [255, 234, 70]];
  function color(v) {
    const at = Math.min(Math.max(v, 0), 1) * 4, k = Math.min(Math.floor(at), 3), f = at - k;
    return `rgb(${stops[k].map((c, j) => Math.round(c + f * (stops[k + 1][j] - c))).join(",")})`;
  }

  function matrix(name, values, description) {
    const svg = panel(name, description), n = values.length, size = (H - M.top - M.bottom) / n;
    const left = (W - n * size) / 2;
    values.forEach((row, i) => row.forEach((v, j) => {
      const at = { x: left + j * size, y: H - M.bottom - (i + 1) * size };
      element(svg, "rect", { ...at, width: size, height: size, fill: v === null ? "none" : color(v) });
      const text = { x: at.x + size / 2, y: at.y + size / 2 + 3.5, class: "explorer-cell", style: `fill: ${v > 0.45 ? "#000" : "#fff"}` };
      element(svg, "text", text, v === null ? "" : v.toFixed(2).replace(/^0/, "").replace(/^-0/, "-"));
    }));
    for (let i = 0; i < n; i++) {
      element(svg, "text", { x: left + (i + 0.5) * size, y: H - M.bottom + 16, class: "explorer-tick" }, i);
      element(svg, "text", { x: left - 6, y: H - M.bottom - (i + 0.5) * size + 4, class: "explorer-tick explorer-right" }, i);
    }
    element(svg, "text", { x: W / 2, y: H - 6, class: "explorer-label" }, "depth");
    element(svg, "text", { x: left - 28, y: H / 2, class: "explorer-label", transform: `rotate(-90 ${left - 28} ${H / 2})` }, "depth");
  }

  function draw() {
    const c = choice(), found = data.results[`${c.family}|${c.xi}|${c.mixing}`];
    const states = c.state === "both" ? ["trained", "init"] : [c.state];
    const style = { trained: "explorer-trained", init: "explorer-init" };
    const key = (state) => found[state][c.view];
    const words = (name) => controls[name].selectedOptions[0].text;
    const title = `${words("family")} chain, ξ = ${words("xi")}, ${words("mixing")}, ${words("view")} view`;
    const depths = Array.from({ length: data.depths }, (_, i) => i);
    lines("rank", states.map((s) => ({ rows: key(s).rank[c.definition], style: style[s] })), depths,
      "rank", `Effective rank by depth: ${title}, ${words("definition")}, ${words("state")}`);
    lines("drift", states.map((s) => ({ rows: key(s).drift, style: style[s] })), depths.slice(1).map((d) => `${d - 1}→${d}`),
      "kernel drift", `Kernel drift by transition: ${title}, ${words("state")}`);
    matrix("cka", key(states[0]).cka, `CKA between depths, mean over seeds: ${title}, ${states[0]}`);
    const shown = states.map((s) => `${s === "init" ? "untrained" : "trained"}: rank ${mean(key(s).rank[c.definition].map((r) => r[0])).toFixed(2)} at depth 0, ` +
      `${mean(key(s).rank[c.definition].map((r) => r[r.length - 1])).toFixed(2)} at the last`);
    root.querySelector(".explorer-summary").textContent = `${title}, ${found.seeds} seeds. ${shown.join("; ")}. Matrix: ${states[0] === "init" ? "untrained" : "trained"}.`;
  }

  addEventListener("hashchange", readAddress);
  readAddress();
})();
