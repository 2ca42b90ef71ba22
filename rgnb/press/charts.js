// What the interactive figures share: controls whose choice lives in the address after #, so that a link opens
// the same view; charts in SVG; values with intervals. Each figure's own script follows, in the same function.
const W = 430, H = 270, M = { left: 46, right: 84, top: 12, bottom: 40 };

function element(parent, tag, attributes, text) {
  const e = document.createElementNS(document.querySelector(".explorer svg").namespaceURI, tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  parent.append(e);
  return e;
}

function labelled(parent, text, control) {
  const box = document.createElement("label");
  box.append(text + " ", control);
  parent.append(box);
  return control;
}

function group(parent, title, name) {
  const set = document.createElement("fieldset");
  set.className = `explorer-${name}`;
  set.append(Object.assign(document.createElement("legend"), { textContent: title }));
  parent.append(set);
  return set;
}

function select(parent, name, { label, options }) {
  const control = Object.assign(document.createElement("select"), { name });
  for (const option of options) control.add(new Option(option.label, option.value));
  return labelled(parent, label, control);
}

// A slider over a list of stops; its value is a stop, which it says.
function slider(parent, name, label) {
  const input = Object.assign(document.createElement("input"), { type: "range", name, min: 0, step: 1 });
  labelled(parent, label, input);
  const said = input.parentNode.appendChild(document.createElement("output"));
  let stops = [];
  const say = () => {
    said.textContent = `${stop.value}`;
    input.setAttribute("aria-valuetext", said.textContent);
  };
  input.addEventListener("input", say);
  const stop = {
    input,
    get all() { return stops; },
    get value() { return stops[+input.value]; },
    set value(v) {
      if (stops.includes(v)) input.value = stops.indexOf(v);
      say();
    },
    // Other stops: the nearest one below the present takes its place.
    set stops(list) {
      const before = stop.value;
      stops = list;
      input.max = list.length - 1;
      input.value = before === undefined ? list.length - 1 : Math.max(list.findLastIndex((s) => s <= before), 0);
      say();
    },
  };
  return stop;
}

// Keeps the values of controls, {name: select or slider}, in the address, and draws anew when one changes.
function remember(controls, draw) {
  const inputs = Object.entries(controls).map(([name, c]) => [name, c, c.input ?? c]);
  const read = () => {
    const asked = [...new URLSearchParams(location.hash.slice(1))].filter(([name]) => name in controls);
    for (const [name, value] of asked) {
      const options = [...(controls[name].options ?? [])];
      if (options.some((o) => o.value === value)) controls[name].value = value;
    }
    draw(); // which stops a slider has depends on the others
    for (const [name, value] of asked) if (controls[name].input) controls[name].value = +value;
    draw();
  };
  for (const [, , input] of inputs) {
    input.addEventListener("input", () => {
      draw();
      history.replaceState(null, "", "#" + new URLSearchParams(inputs.map(([name, c]) => [name, c.value])));
    });
  }
  addEventListener("hashchange", read);
  read();
}

const words = (control) => control.selectedOptions[0].text;
const finite = (values) => values.filter((v) => v !== null);
// Where a network has no value there is no mean.
const whole = (values) => values.length > 0 && finite(values).length === values.length;
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

function interval(v) {
  const n = v.length, m = mean(v);
  if (n < 2) return [m, m];
  const sd = Math.sqrt(v.reduce((a, x) => a + (x - m) ** 2, 0) / (n - 1));
  const half = (data.t[Math.min(n - 2, data.t.length - 1)] * sd) / Math.sqrt(n);
  return [m - half, m + half];
}

const digits = (x) => (Math.abs(x) < 0.005 ? "0.00" : x.toFixed(2));
// As in the book's tables: mean [interval], two digits.
function said(v) {
  if (!whole(v)) return "no value";
  if (v.length < 2) return `${digits(v[0])} (no interval)`;
  const all = [mean(v), ...interval(v)].map(digits);
  if (all.every((x) => x === "0.00")) return Math.min(...interval(v)) < 0 ? "within 0.01 of 0" : "below 0.01";
  return `${all[0]} [${all[1]}, ${all[2]}]`;
}

function ticks(top) {
  const raw = top / 5, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= raw);
  return Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, i) => i * step);
}

// An empty chart with its axes; y runs from 0 to top. Returns { svg, x(i), y(v) }.
function axes(svg, { labels, top, xlabel, ylabel, description }) {
  svg.replaceChildren();
  svg.setAttribute("aria-label", description);
  const n = labels.length;
  const x = (i) => M.left + ((W - M.left - M.right) * (i + 0.3)) / (n - 0.4);
  const y = (v) => H - M.bottom - ((H - M.top - M.bottom) * Math.min(Math.max(v, 0), top)) / top;
  for (const t of ticks(top)) {
    element(svg, "line", { x1: M.left, x2: W - M.right, y1: y(t), y2: y(t), class: "explorer-grid" });
    element(svg, "text", { x: M.left - 6, y: y(t) + 4, class: "explorer-right" }, +t.toPrecision(3));
  }
  labels.forEach((label, i) => element(svg, "text", { x: x(i), y: H - M.bottom + 16 }, label));
  element(svg, "text", { x: (W + M.left - M.right) / 2, y: H - 6 }, xlabel);
  element(svg, "text", { x: 12, y: (H - M.bottom) / 2, transform: `rotate(-90 12 ${(H - M.bottom) / 2})` }, ylabel);
  return { svg, x, y };
}

const shapes = {
  a: (x, y) => ["circle", { cx: x, cy: y, r: 3.6 }],
  b: (x, y) => ["rect", { x: x - 3.3, y: y - 3.3, width: 6.6, height: 6.6 }],
};

// curves: [{ rows: networks x points, setting: "a" or "b", untrained, name }]
function lines(svg, frame, curves) {
  const { x, y } = axes(svg, frame);
  const path = (values) => {
    let d = "", pen = "M";
    values.forEach((v, i) => {
      if (v === null) pen = "M";
      else { d += `${pen}${x(i).toFixed(1)},${y(v).toFixed(1)}`; pen = "L"; }
    });
    return d;
  };
  const ends = [];
  for (const { rows, setting, untrained, name } of curves) {
    const style = `explorer-${setting}${untrained ? " explorer-untrained" : ""}`;
    const columns = frame.labels.map((_, i) => rows.map((r) => r[i]));
    if (!untrained) {
      const known = columns.map((c, i) => [whole(c) && interval(c), i]).filter(([b]) => b);
      const edge = (k) => known.map(([b, i]) => `${x(i).toFixed(1)},${y(b[k]).toFixed(1)}`);
      element(svg, "polygon", { points: [...edge(0), ...edge(1).reverse()].join(" "), class: `explorer-band ${style}` });
      for (const row of rows) element(svg, "path", { d: path(row), class: `explorer-seed ${style}` });
    }
    const means = columns.map((c) => (whole(c) ? mean(c) : null));
    element(svg, "path", { d: path(means), class: `explorer-mean ${style}` });
    if (!untrained) {
      means.forEach((m, i) => m !== null && element(svg, ...shapes[setting](x(i), y(m))).classList.add("explorer-mark", style));
    }
    const last = means.findLastIndex((m) => m !== null);
    if (last >= 0) ends.push({ name, style, x: x(last), y: y(means[last]) });
  }
  if (!ends.length) element(svg, "text", { x: W / 2, y: H / 2 }, "no value for this choice");
  // Names at the ends of curves, moved apart where they would overlap, none below the axis.
  ends.sort((p, q) => p.y - q.y);
  ends.forEach((end, k) => (end.y = Math.max(end.y, k ? ends[k - 1].y + 13 : M.top)));
  ends.reverse().forEach((end, k) => (end.y = Math.min(end.y, k ? ends[k - 1].y - 13 : H - M.bottom)));
  for (const { name, style, x, y } of ends) element(svg, "text", { x: x + 8, y: y + 4, class: `explorer-name ${style}` }, name);
  return x;
}

// Blue to yellow, equal steps in lightness (after cividis).
const shades = [[0, 32, 77], [64, 78, 107], [124, 123, 120], [186, 174, 108], [255, 234, 70]];
function color(v) {
  const at = Math.min(Math.max(v, 0), 1) * 4, k = Math.min(Math.floor(at), 3), f = at - k;
  return `rgb(${shades[k].map((c, j) => Math.round(c + f * (shades[k + 1][j] - c))).join(",")})`;
}

function matrix(svg, values, first, description) {
  svg.replaceChildren();
  svg.setAttribute("aria-label", description);
  if (!values) {
    element(svg, "text", { x: W / 2, y: H / 2 }, "not measured for this choice");
    return;
  }
  const shown = values.slice(first).map((row) => row.slice(first)), n = shown.length;
  const size = (H - M.top - M.bottom) / n, left = (W - n * size) / 2;
  shown.forEach((row, i) => row.forEach((v, j) => {
    const at = { x: left + j * size, y: H - M.bottom - (i + 1) * size };
    element(svg, "rect", { ...at, width: size, height: size, fill: v === null ? "none" : color(v) });
    const text = { x: at.x + size / 2, y: at.y + size / 2 + 4, style: `fill: ${v > 0.45 ? "#000" : "#fff"}` };
    element(svg, "text", text, v === null ? "" : v.toFixed(2).replace(/^(-?)0/, "$1"));
  }));
  for (let i = 0; i < n; i++) {
    element(svg, "text", { x: left + (i + 0.5) * size, y: H - M.bottom + 16 }, first + i);
    element(svg, "text", { x: left - 6, y: H - M.bottom - (i + 0.5) * size + 4, class: "explorer-right" }, first + i);
  }
  element(svg, "text", { x: W / 2, y: H - 6 }, "depth");
  element(svg, "text", { x: left - 28, y: H / 2, transform: `rotate(-90 ${left - 28} ${H / 2})` }, "depth");
}

// A link that saves what `rows()` returns, its first row the names of columns.
function download(link, rows) {
  link.addEventListener("click", () => {
    const quoted = (v) => (/[",]/.test(v) ? `"${v.replaceAll('"', '""')}"` : v ?? "");
    const text = rows().map((row) => row.map(quoted).join(",")).join("\n");
    link.href = `data:text/csv,${encodeURIComponent(text + "\n")}`;
  });
}
