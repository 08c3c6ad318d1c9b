// The table of all cells: searched, sorted, a page at a time; and the raw view of one cell.

const PAGE = 50;
const order = { by: "", up: true, page: 0 };

function sortedRows() {
  const rows = shownRows();
  if (!order.by) return rows;
  const sign = order.up ? 1 : -1;
  return rows.sort((a, b) => {
    const [one, other] = [valueOf(order.by, a), valueOf(order.by, b)];
    if (one === null || other === null) return (one === null) - (other === null);
    return one < other ? -sign : one > other ? sign : a - b;
  });
}

function drawTable() {
  const rows = sortedRows();
  const pages = Math.max(1, Math.ceil(rows.length / PAGE));
  order.page = Math.min(order.page, pages - 1);
  const shown = rows.slice(order.page * PAGE, (order.page + 1) * PAGE);
  const names = [...DATA.texts, ...DATA.columns.filter((column) => column.shown).map((column) => column.name)];
  const head = element("tr", {}, ...names.map((name) => {
    const mark = order.by === name ? (order.up ? " ↑" : " ↓") : "";
    const button = element("button", { onclick: () => sortBy(name) }, (COLUMNS.get(name)?.label ?? name) + mark);
    const sort = order.by === name ? (order.up ? "ascending" : "descending") : "none";
    return element("th", { "aria-sort": sort, class: DATA.texts.includes(name) ? "name" : "" }, button);
  }));
  const body = shown.map((row) => {
    const line = element("tr", { tabindex: "0", "data-cell": valueOf("cell_id", row),
      onkeydown: (event) => { if (event.key === "Enter") pin(row); }, onclick: () => pin(row) });
    if (row === state.selected) line.classList.add("selected");
    for (const name of names) {
      const text = DATA.texts.includes(name);
      const link = name === "technique"
        ? element("a", { href: `#cell=${valueOf("cell_id", row)}` }, formatCell(name, row))
        : formatCell(name, row);
      line.append(element("td", { class: text ? "name" : "" }, link));
    }
    return line;
  });
  document.getElementById("table").replaceChildren(head, ...body);
  const place = `${rows.length} cells, page ${order.page + 1} of ${pages}`;
  document.getElementById("place").textContent = place;
  document.getElementById("before").disabled = order.page === 0;
  document.getElementById("after").disabled = order.page === pages - 1;
}

function sortBy(name) {
  Object.assign(order, { up: order.by === name ? !order.up : true, by: name, page: 0 });
  drawTable();
}

function turn(pages) {
  order.page += pages;
  drawTable();
}

// Rounds of one cell: the median of each block over time, the disturbed ones marked.
function drawRaw() {
  const box = document.getElementById("raw");
  box.replaceChildren();
  if (state.selected === null) return;
  const id = valueOf("cell_id", state.selected);
  const blocks = DATA.rounds[id];
  const title = element("h3", {}, `Every round of ${nameOf(state.selected)}`);
  if (!blocks) {
    const why = DATA.rounds_left_out || "the run holds no samples of this cell";
    box.append(title, element("p", {}, `Not here: ${why}.`));
    return;
  }
  const holder = element("div", { class: "raw" });
  box.append(title, holder);
  const style = getComputedStyle(document.body);
  const traces = DATA.causes.map((cause, place) => {
    const part = blocks.filter((block) => block[2] === place);
    return { type: "scatter", mode: "markers", name: cause || "clean", x: part.map((block) => block[0]),
      y: part.map((block) => block[1]), marker: { color: cause ? PALETTE[place] : PALETTE[0],
        symbol: cause ? "x" : "circle", size: 7 } };
  }).filter((trace) => trace.x.length);
  Plotly.newPlot(holder, traces, {
    xaxis: { title: { text: "round" }, gridcolor: "#8884" },
    yaxis: { title: { text: "median of the block, s" }, exponentformat: "SI", gridcolor: "#8884" },
    margin: { l: 60, r: 10, t: 10, b: 50 }, showlegend: true, height: 260,
    paper_bgcolor: "#0000", plot_bgcolor: "#0000", font: { color: style.color, family: style.fontFamily },
  }, { responsive: true, displaylogo: false });
}
