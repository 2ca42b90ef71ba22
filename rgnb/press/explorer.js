// The explorer page: rank and drift by depth and CKA matrices of two settings, A and B, over each other.
const root = document.getElementById("explorer-app");
const data = JSON.parse(document.getElementById("explorer-data").textContent);
const figure = (name) => root.querySelector(`[data-figure="${name}"]`);
const box = root.querySelector(".explorer-controls");

const controls = {};
for (const setting of ["a", "b"]) {
  const set = group(box, setting.toUpperCase(), setting);
  for (const [name, of] of Object.entries(data.setting)) controls[`${setting}-${name}`] = select(set, name, of);
}
controls["b-training"].add(new Option("none", ""));
// At first: short memory against long.
controls["b-xi"].selectedIndex = controls["b-xi"].length - 1;
const both = group(box, "Both", "both");
for (const [name, of] of Object.entries(data.shared)) controls[name] = select(both, name, of);
controls.step = slider(both, "step", "Training step");
controls.depth = slider(both, "depth", "Values at depth");

const found = (setting) =>
  data.results[["training", "family", "xi"].map((name) => controls[`${setting}-${name}`].value).join("|")];
// What was measured of a setting under the chosen view and definition: {step: numbers}.
function measured(setting) {
  const steps = found(setting)?.steps ?? {};
  const known = Object.entries(steps).map(([step, views]) => [step, views[controls.view.value]]);
  return Object.fromEntries(known.filter(([, n]) => n && controls.definition.value in n.rank));
}
// Numbers at the chosen step, or the last one before it.
function at(setting) {
  const steps = measured(setting);
  const step = Object.keys(steps).map(Number).filter((s) => s <= controls.step.value).pop();
  return step === undefined ? null : { step, seeds: found(setting).seeds, ...steps[step] };
}

// Axes are fixed: the largest mean and network of all settings, under the same view and definition.
function top(pick) {
  const all = Object.values(data.results).flatMap((r) => Object.values(r.steps).map((v) => v[controls.view.value]));
  return 1.04 * Math.max(...finite(all.flatMap((n) => (n ? pick(n) ?? [] : [])).flat()));
}

function shown() {
  const first = +controls.first.value;
  return ["a", "b"].flatMap((setting) => {
    const now = at(setting);
    if (!now) return [];
    const cut = (numbers, untrained) => ({
      setting, untrained, seeds: now.seeds, step: untrained ? 0 : now.step,
      name: setting.toUpperCase() + (untrained ? " untrained" : ""),
      rank: numbers.rank[controls.definition.value].map((r) => r.slice(first)),
      drift: numbers.drift.map((r) => r.slice(first)),
    });
    const beside = controls.untrained.value === "beside" && now.step > 0;
    return [cut(now, false), ...(beside ? [cut(measured(setting)[0], true)] : [])];
  });
}

const title = (setting) => ["training", "family", "xi"].map((name) => words(controls[`${setting}-${name}`]));
function named(setting) {
  const [training, family, xi] = title(setting);
  return `${setting.toUpperCase()}: ${family} chain, ξ = ${xi}, ${training}`;
}

function draw() {
  const steps = [...new Set(["a", "b"].flatMap((s) => Object.keys(measured(s)).map(Number)))].sort((p, q) => p - q);
  const first = +controls.first.value, depths = Array.from({ length: data.depths - first }, (_, i) => first + i);
  controls.step.stops = steps.length ? steps : [0];
  controls.depth.stops = depths;
  const curves = shown(), of = `${words(controls.view)} view, ${words(controls.definition)}`;
  const about = ["a", "b"].filter(at).map(named).join("; ");
  const rank = top((n) => n.rank[controls.definition.value]), drift = top((n) => n.drift);
  const transitions = depths.slice(1).map((d) => `${d - 1}→${d}`);
  const cursor = controls.depth.value, transition = Math.max(cursor - first - 1, 0);
  for (const [name, labels, frame, index] of [
    ["rank", depths, { top: rank, xlabel: "depth", ylabel: "rank" }, cursor - first],
    ["drift", transitions, { top: drift, xlabel: "transition", ylabel: "kernel drift" }, transition],
  ]) {
    const svg = figure(name).querySelector("svg");
    const description = `${frame.ylabel} by ${frame.xlabel}, ${of}: ${about}`;
    const x = lines(svg, { ...frame, labels, description }, curves.map((c) => ({ ...c, rows: c[name] })));
    element(svg, "line", { x1: x(index), x2: x(index), y1: M.top, y2: H - M.bottom, class: "explorer-cursor" });
    const values = curves.map((c) => `${c.name}: ${said(c[name].map((r) => r[index]))}`);
    figure(name).querySelector("output").textContent = `${frame.xlabel} ${labels[index]}. ${values.join("; ")}`;
    svg.onpointermove = (event) => {
      const place = svg.getBoundingClientRect(), wide = ((event.clientX - place.x) * W) / place.width;
      const nearest = labels.map((_, i) => Math.abs(x(i) - wide)).reduce((best, d, i, all) => (d < all[best] ? i : best), 0);
      const depth = first + nearest + (name === "drift" ? 1 : 0);
      if (depth !== controls.depth.value) { controls.depth.value = depth; draw(); }
    };
  }
  for (const setting of ["a", "b"]) {
    const svg = figure(`cka-${setting}`).querySelector("svg");
    matrix(svg, at(setting)?.cka, first, `CKA between depths, mean over networks: ${named(setting)}`);
  }
  const summary = ["a", "b"].filter((s) => controls[`${s}-training`].value).map((setting) => {
    const line = document.createElement("p"), now = curves.find((c) => c.setting === setting);
    const collapse = now?.rank.map((r) => (r[0] && r.at(-1) !== null ? 1 - r.at(-1) / r[0] : null));
    line.textContent = named(setting) + (now
      ? `. ${now.seeds.length} networks, step ${now.step}: rank ${said(now.rank.map((r) => r[0]))} at depth ${first}, ` +
        `${said(now.rank.map((r) => r[r.length - 1]))} at the last; collapse C = ${said(collapse)}.`
      : ". No such networks, or not measured so.");
    return line;
  });
  root.querySelector(".explorer-summary").replaceChildren(...summary);
}

download(root.querySelector(".explorer-data"), () => {
  const first = +controls.first.value;
  const columns = ["setting", "training", "chain", "correlation length", "view", "rank", "step", "seed", "quantity", "depth", "value"];
  const rows = shown().flatMap((c) => ["rank", "drift"].flatMap((quantity) => c[quantity].flatMap((values, seed) =>
    values.map((v, i) => [c.setting.toUpperCase(), ...title(c.setting), words(controls.view), words(controls.definition),
      c.step, c.seeds[seed], quantity, quantity === "rank" ? first + i : `${first + i}→${first + i + 1}`, v]))));
  const cka = ["a", "b"].filter((s) => at(s)?.cka).flatMap((s) => at(s).cka.slice(first).flatMap((values, i) =>
    values.slice(first).map((v, j) => [s.toUpperCase(), ...title(s), words(controls.view), "", at(s).step, "mean", "cka",
      `${first + i}, ${first + j}`, v])));
  return [columns, ...rows, ...cka];
});
remember(controls, draw);
