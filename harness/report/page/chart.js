// The trade-off chart: axes, colour and size of the reader's choice, and the frontier for them.

const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#8C564B"];
const MOST_DRAWN = 2000; // more points are drawn by the graphics card
const chart = document.getElementById("chart");
let members = [];

function metricOptions(select, chosen, none) {
  if (none) select.append(element("option", { value: "" }, none));
  for (const column of DATA.columns.filter((one) => one.direction !== "none")) {
    select.append(element("option", { value: column.name }, column.label));
  }
  select.value = chosen;
}

function setUpControls() {
  const controls = document.getElementById("controls");
  const choice = (label, key, fill) => {
    const select = element("select", { id: `choose-${key}`, onchange: () => change({ [key]: select.value }) });
    fill(select);
    controls.append(element("label", {}, `${label} `, select));
  };
  const tick = (label, key) => {
    const box = element("input", { type: "checkbox", id: `tick-${key}`, onchange: () => change({ [key]: box.checked }) });
    box.checked = state[key];
    controls.append(element("label", {}, box, ` ${label}`));
  };
  choice("across", "x", (select) => metricOptions(select, state.x));
  choice("up", "y", (select) => metricOptions(select, state.y));
  choice("colour", "colour", (select) => {
    for (const name of DATA.texts) select.append(element("option", { value: name }, name));
    select.value = state.colour;
  });
  choice("size", "size", (select) => metricOptions(select, "", "the same"));
  tick("log across", "logX");
  tick("log up", "logY");
  tick("intervals", "intervals");
  tick("one frontier for all places", "across");
}

function colourNames(rows) {
  const counted = new Map();
  for (const row of rows) {
    const name = String(valueOf(state.colour, row));
    counted.set(name, (counted.get(name) || 0) + 1);
  }
  const names = [...counted.keys()];
  if (names.length <= PALETTE.length) return names;
  names.sort((a, b) => counted.get(b) - counted.get(a));
  return [...names.slice(0, PALETTE.length - 1), "all others"];
}

function drawLegend(names) {
  const legend = document.getElementById("legend");
  legend.replaceChildren(...names.map((name, place) => {
    const dot = element("span", { class: "dot" });
    dot.style.background = PALETTE[place];
    return element("span", { class: "key" }, dot, name);
  }));
}

function sizesOf(rows) {
  if (!state.size || !rows.length) return 7;
  const values = rows.map((row) => valueOf(state.size, row));
  const known = values.filter((value) => value > 0);
  const [least, most] = [Math.min(...known), Math.max(...known)];
  const span = Math.log(most / least) || 1;
  return values.map((value) => (value > 0 ? 5 + (13 * Math.log(value / least)) / span : 4));
}

function errorBars(name, rows) {
  if (!state.intervals || !DATA.cells[`${name}_low`]) return undefined;
  const away = (side) => rows.map((row) => {
    const bound = valueOf(`${name}_${side}`, row);
    return bound === null ? 0 : Math.abs(bound - valueOf(name, row));
  });
  return { type: "data", symmetric: false, array: away("high"), arrayminus: away("low"),
    thickness: 1, width: 2 };
}

function pointTrace(rows, look, many) {
  return {
    type: many ? "scattergl" : "scatter", mode: "markers", hoverinfo: "none", customdata: rows,
    x: rows.map((row) => valueOf(state.x, row)), y: rows.map((row) => valueOf(state.y, row)),
    error_x: errorBars(state.x, rows), error_y: errorBars(state.y, rows),
    marker: { size: sizesOf(rows), ...look },
  };
}

// Cells of one colour are one trace, which is drawn fast; the few that stand out are the last.
function pointTraces(rows, names) {
  const outstanding = new Set([...members, ...state.pinned]);
  const parts = names.map(() => []), front = [], colours = [];
  for (const row of rows) {
    const found = names.indexOf(String(valueOf(state.colour, row)));
    const place = found < 0 ? names.length - 1 : found;
    if (outstanding.has(row)) {
      front.push(row);
      colours.push(PALETTE[place]);
    } else parts[place].push(row);
  }
  const many = rows.length > MOST_DRAWN;
  const edge = { width: 1.5, color: getComputedStyle(document.body).color };
  return [
    ...parts.map((part, place) => pointTrace(part, { color: PALETTE[place], opacity: 0.35 }, many)),
    pointTrace(front, { color: colours, line: edge }, many),
  ];
}

function frontierTraces(rows) {
  members = [];
  const traces = [];
  const names = state.across ? ["task"] : DATA.group;
  for (const group of groupRows(rows, names).values()) {
    const found = findFrontier(group, state.x, state.y);
    members.push(...found);
    traces.push({
      type: rows.length > MOST_DRAWN ? "scattergl" : "scatter", mode: "lines", hoverinfo: "skip",
      x: found.map((row) => valueOf(state.x, row)), y: found.map((row) => valueOf(state.y, row)),
      line: { width: 1, color: "#8888", shape: "hv" },
    });
  }
  return traces;
}

function axis(name, log) {
  const column = COLUMNS.get(name);
  const unit = column.unit === "1" ? "" : `, ${column.unit}`;
  const better = column.direction === "higher" ? "higher is better" : "lower is better";
  return { title: { text: `${column.label}${unit} (${better})` }, type: log ? "log" : "linear",
    exponentformat: "SI", gridcolor: "#8884", zeroline: false, automargin: true };
}

function drawChart() {
  const complete = shownRows().filter(
    (row) => valueOf(state.x, row) !== null && valueOf(state.y, row) !== null,
  );
  const lines = frontierTraces(complete);
  const names = colourNames(complete);
  drawLegend(names);
  const style = getComputedStyle(document.body);
  const layout = {
    xaxis: axis(state.x, state.logX), yaxis: axis(state.y, state.logY), showlegend: false,
    margin: { l: 60, r: 10, t: 10, b: 50 }, hovermode: "closest", dragmode: "pan",
    paper_bgcolor: "#0000", plot_bgcolor: "#0000", font: { color: style.color, family: style.fontFamily },
  };
  // Plotly draws two pixels for each of the screen's, which takes twice as long without a graphics card.
  const options = { responsive: true, displaylogo: false, scrollZoom: true, plotGlPixelRatio: devicePixelRatio,
    modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  const told = document.getElementById("told");
  const left = shownRows().length - complete.length;
  told.textContent = `${members.length} of ${complete.length} cells on the frontier` +
    (left ? `; ${left} lack one of the two` : "");
  return Plotly.react(chart, [...lines, ...pointTraces(complete, names)], layout, options);
}

function showHover(row) {
  const place = DATA.group.map((name) => `${name} ${valueOf(name, row)}`).join(", ");
  const parts = [state.x, state.y].map((name) => `${COLUMNS.get(name).label} ${formatCell(name, row)}`);
  document.getElementById("hover").textContent = `${nameOf(row)} · ${place} · ${parts.join(" · ")}`;
}

function pin(row) {
  const pinned = state.pinned.includes(row)
    ? state.pinned.filter((one) => one !== row)
    : [...state.pinned, row].slice(-2);
  change({ pinned, selected: row });
}

function drawPinned() {
  const box = document.getElementById("pinned");
  box.replaceChildren();
  if (!state.pinned.length) return;
  const head = element("tr", {}, element("th", { class: "name" }, ""),
    ...state.pinned.map((row) => element("th", {}, nameOf(row))));
  if (state.pinned.length === 2) head.append(element("th", {}, "second / first"));
  const table = element("table", {}, head);
  for (const name of [...DATA.texts.slice(2), ...DATA.columns.map((column) => column.name)]) {
    const values = state.pinned.map((row) => valueOf(name, row));
    if (values.every((value) => value === null)) continue;
    const line = element("tr", {}, element("td", { class: "name" }, COLUMNS.get(name)?.label ?? name),
      ...state.pinned.map((row) => element("td", {}, formatCell(name, row))));
    if (values.length === 2 && values.every((value) => typeof value === "number") && values[0]) {
      line.append(element("td", {}, (values[1] / values[0]).toFixed(3)));
    }
    table.append(line);
  }
  box.append(element("h3", {}, state.pinned.length === 2 ? "Two cells compared" : "A cell; click another to compare"),
    element("div", { class: "wide" }, table));
}
