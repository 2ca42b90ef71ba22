// The page on coarse-graining: at one depth after the other, the share of each group of modes in the stream, in the
// lens, and in an ideal coarse-graining.
const root = document.getElementById("coarse-graining-app");
const data = JSON.parse(document.getElementById("coarse-graining-data").textContent);
const box = group(root.querySelector(".explorer-controls"), "Choose", "both");
const controls = {};
controls.depth = slider(box, "depth", "Depth");
for (const [name, of] of Object.entries(data.choices)) controls[name] = select(box, name, of);
controls.depth.stops = Array.from({ length: data.depths }, (_, i) => i);
// At first: where the way begins, with long memory, of which there is more to keep.
controls.depth.value = 1;
controls.setting.selectedIndex = controls.setting.length - 1;

const kinds = [["stream", "explorer-a"], ["lens", "explorer-b"], ["ideal", "explorer-ideal"]];
// The ideal is one number, the same for all networks.
const told = (values, k) => (kinds[k][0] === "ideal" && whole(values) ? digits(values[0]) : said(values));
const cell = (row, tag, text, attributes = {}) => row.append(Object.assign(document.createElement(tag), { textContent: text }, attributes));

// Of one group of modes at a depth: [shares of the networks' streams, of their lenses, [the ideal]].
function shares(level, depth) {
  const chosen = data.results[controls.setting.value], state = chosen[controls.state.value];
  const of = (kind) => state[kind].map((network) => network[level][depth]);
  return [of(controls.rows.value), of("lens"), [chosen.ideal[level]]];
}

function draw() {
  const chosen = data.results[controls.setting.value], depth = controls.depth.value;
  const levels = chosen.modulus.map((modulus, k) => ({ modulus, modes: chosen.multiplicity[k], shares: shares(k, depth) }));
  const about = `${words(controls.state)} networks, ${words(controls.setting)}, depth ${depth}`;
  const svg = root.querySelector("svg.shares");
  const { x, y } = axes(svg, {
    labels: levels.map((l) => `${l.modulus} (${l.modes})`), top: 1, ylabel: "share",
    xlabel: "relevance |λ| (number of modes)", description: `Shares of groups of modes, ${about}; the table below has the numbers.`,
  });
  const wide = (0.26 * (W - M.left - M.right)) / levels.length;
  kinds.forEach(([name, style], k) => {
    const left = (i) => x(i) + (k - 1.5) * wide;
    levels.forEach((level, i) => {
      const values = level.shares[k];
      if (!whole(values)) return;
      const bar = { x: left(i) + 1, width: wide - 2, y: y(mean(values)), height: y(0) - y(mean(values)) };
      const drawn = element(svg, "rect", { ...bar, class: `shares-bar ${style}` });
      element(drawn, "title", {}, `${name}: ${told(values, k)}`);
      if (name !== "ideal") for (const v of values) element(svg, "circle", { cx: left(i) + wide / 2, cy: y(v), r: 2, class: "shares-network" });
    });
    element(svg, "rect", { x: W - M.right + 12, y: M.top + 22 * k, width: 12, height: 12, class: `shares-bar ${style}` });
    element(svg, "text", { x: W - M.right + 30, y: M.top + 11 + 22 * k, class: "shares-name" }, name);
  });
  const masked = controls.rows.value === "masked";
  if (depth === 0) element(svg, "text", { x: (M.left + W - M.right) / 2, y: y(0.9) }, `Masked positions are all alike here${masked ? "" : ": no lens"}.`);
  const at = 82 + (330 / (data.depths - 1)) * depth;
  root.querySelector('[data-moves="arrow"]').setAttribute("transform", `translate(${at} 0)`);
  root.querySelector('[data-moves="lens"]').setAttribute("transform", `translate(${Math.min(Math.max(at - 62, 0), 304)} 0)`);
  const table = root.querySelector("table"), [head, body] = [document.createElement("tr"), []];
  for (const name of ["|λ|", "modes", "stream", "lens", "ideal"]) cell(head, "th", name, { scope: "col" });
  for (const level of levels) {
    const row = document.createElement("tr");
    cell(row, "th", level.modulus, { scope: "row" });
    for (const text of [level.modes, ...level.shares.map(told)]) cell(row, "td", text);
    body.push(row);
  }
  table.caption.textContent = `Shares of the chain's modes: ${about}; mean [95 % interval] over ${chosen.seeds.length} networks.`;
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...body);
  const [first] = levels, inside = levels.map((l) => l.shares[0]);
  const rest = inside.every(whole) ? ` Outside all modes: ${Math.max(1 - inside.reduce((sum, v) => sum + mean(v), 0), 0).toFixed(2)} of the stream.` : "";
  root.querySelector(".explorer-summary").textContent =
    `Depth ${depth}: the most relevant modes hold ${said(first.shares[0])} of the stream and ${said(first.shares[1])} of the lens; ideal ${told(first.shares[2], 2)}.${rest}`;
}

download(root.querySelector(".explorer-data"), () => {
  const chosen = data.results[controls.setting.value];
  const columns = ["networks", "setting", "seed", "depth", "modulus", "modes", "stream", "lens", "ideal"];
  const rows = controls.depth.all.flatMap((depth) => chosen.modulus.flatMap((modulus, level) => {
    const [stream, lens, [ideal]] = shares(level, depth);
    const named = [words(controls.state), words(controls.setting)];
    return chosen.seeds.map((seed, k) => [...named, seed, depth, modulus, chosen.multiplicity[level], stream[k], lens[k], ideal]);
  }));
  return [columns, ...rows];
});
remember(controls, draw);
