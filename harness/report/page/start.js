// Start: choices from the data, listeners, and the cell that the address names.

function selectFromAddress() {
  const found = /^#cell=([0-9a-f]+)$/.exec(location.hash);
  if (!found) return;
  const row = DATA.cells.cell_id.indexOf(found[1]);
  if (row < 0) return;
  state.words = [];
  document.getElementById("search").value = "";
  order.page = Math.floor(sortedRows().indexOf(row) / PAGE);
  change({ selected: row, pinned: [row] });
  document.querySelector("tr.selected")?.scrollIntoView({ block: "center" });
}

function start() {
  const search = document.getElementById("search");
  search.addEventListener("input", () => {
    order.page = 0;
    change({ words: search.value.toLowerCase().split(/\s+/).filter(Boolean) });
  });
  document.getElementById("before").addEventListener("click", () => turn(-1));
  document.getElementById("after").addEventListener("click", () => turn(1));
  Object.assign(state, DATA.start);
  setUpControls();
  let drawn = null;
  drawFrom(["words", "selected"], drawTable);
  drawFrom(["pinned"], drawPinned);
  drawFrom(["selected"], drawRaw);
  drawFrom(["x", "y", "colour", "size", "across", "logX", "logY", "intervals", "words", "pinned"],
    () => { drawn = drawChart(); });
  change(state);
  drawn.then(() => {
    chart.on("plotly_hover", (event) => showHover(event.points[0].customdata));
    chart.on("plotly_click", (event) => pin(event.points[0].customdata));
    document.body.dataset.ready = "yes";
  });
  addEventListener("hashchange", selectFromAddress);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => change(state));
  selectFromAddress();
}

if (COUNT) start();
