"use strict";
// The data of the page, and what is computed from them: formats, filters, frontiers.

const DATA = JSON.parse(document.getElementById("data").textContent);
const COLUMNS = new Map(DATA.columns.map((column) => [column.name, column]));
const COUNT = DATA.count;
const PREFIXES = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
const BYTES = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]];

function valueOf(name, row) {
  const values = DATA.cells[name];
  return values ? values[row] : null;
}

function nameOf(row) {
  const runtime = valueOf("runtime", row);
  const plain = runtime === "eager" || runtime === "training";
  return `${valueOf("model", row)} · ${valueOf("technique", row)}${plain ? "" : ` (${runtime})`}`;
}

function formatValue(value, unit) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const plain = unit === "1" || unit === "";
  let scale = [1, ""];
  if (unit === "B") scale = BYTES.find(([size]) => Math.abs(value) >= size) || BYTES[3];
  else if (value && !(plain && Math.abs(value) < 1e3)) {
    scale = PREFIXES.find(([size]) => Math.abs(value) >= size * 0.9995) || PREFIXES[6];
  }
  const shown = value / scale[0];
  const digits = plain && Math.abs(value) <= 1 ? 4 : 3;
  const places = shown === 0 ? 0 : Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(shown))));
  const name = unit === "B" ? scale[1] : scale[1] + (plain ? "" : unit.replace(/^1/, ""));
  return `${shown.toFixed(Math.min(places, 12))} ${name}`.trim();
}

function formatCell(name, row) {
  const value = valueOf(name, row);
  if (!COLUMNS.has(name)) return String(value ?? "–");
  const unit = COLUMNS.get(name).unit;
  const [low, high] = [valueOf(`${name}_low`, row), valueOf(`${name}_high`, row)];
  const text = formatValue(value, unit);
  if (low === null || high === null) return text;
  return `${text} (${formatValue(low, unit)} – ${formatValue(high, unit)})`;
}

// Which rows no other row of their group beats; equal rows do not beat each other.
function findFrontier(rows, x, y) {
  const sign = (name) => (COLUMNS.get(name).direction === "higher" ? -1 : 1);
  const [xSign, ySign] = [sign(x), sign(y)];
  const points = rows
    .map((row) => [valueOf(x, row) * xSign, valueOf(y, row) * ySign, row])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const members = [];
  let best = Infinity, bestX = NaN;
  for (const [cost, worth, row] of points) {
    if (worth < best || (worth === best && cost === bestX)) {
      members.push(row);
      best = worth;
      bestX = cost;
    }
  }
  return members;
}

function groupRows(rows, names) {
  const groups = new Map();
  for (const row of rows) {
    const key = JSON.stringify(names.map((name) => valueOf(name, row)));
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(row);
  }
  return groups;
}

// A search is words; each must occur in the cell's texts. `name:word` looks at one column.
function matches(row, words) {
  return words.every((word) => {
    const colon = word.indexOf(":");
    const column = colon > 0 ? word.slice(0, colon) : "";
    if (DATA.texts.includes(column)) {
      return String(valueOf(column, row)).toLowerCase().includes(word.slice(colon + 1));
    }
    return DATA.texts.some((name) => String(valueOf(name, row)).toLowerCase().includes(word));
  });
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const state = { x: "", y: "", colour: "", size: "", across: false, logX: true, logY: false,
  intervals: false, words: [], pinned: [], selected: null };
const listeners = [];

// What is drawn from which part of the state; what did not change is not drawn again.
function drawFrom(keys, draw) {
  listeners.push({ keys, draw });
}

function change(part) {
  Object.assign(state, part);
  for (const { keys, draw } of listeners) if (keys.some((key) => key in part)) draw();
}

function shownRows() {
  const rows = [];
  for (let row = 0; row < COUNT; row++) if (matches(row, state.words)) rows.push(row);
  return rows;
}
