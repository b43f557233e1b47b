// The table of queries: sorted, filtered and paged here. Rankings are unpacked when a query is opened.
// Texts reach the page through textContent only, so none of them is ever read as HTML.
"use strict";

const PAGE = 20;
const TOP = 10;

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function button(className, text, act) {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

function number(value, digits, sign) {
  if (value === null || Number.isNaN(value)) return "–";
  const text = Math.abs(value).toFixed(digits);
  return (value < 0 ? "−" : sign && value > 0 ? "+" : "") + text;
}

// ---- light and dark

function themeToggle() {
  const root = document.documentElement;
  const toggle = document.getElementById("theme");
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { toggle.textContent = dark() ? "Light" : "Dark"; };
  toggle.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  toggle.hidden = false;
  name();
}

// ---- rankings of a query

const blocks = new Map();

function block(index) {
  if (!blocks.has(index)) {
    const packed = atob(document.getElementById("block-" + index).textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    blocks.set(index, new Response(stream).json());
  }
  return blocks.get(index);
}

function label(value) {
  if (value === null || value === 0) return null;
  return element("span", "mark positive", value > 1 ? "✓ positive, grade " + value : "✓ positive");
}

function moved(places, name) {
  if (!places) return null;
  const chip = element("span", places > 0 ? "moved up" : "moved down", (places > 0 ? "▲" : "▼") + Math.abs(places));
  const words = Math.abs(places) === 1 ? " place " : " places ";
  chip.title = Math.abs(places) + words + (places > 0 ? "higher" : "lower") + " than " + name;
  return chip;
}

function side(detail, systems, column) {
  const order = detail.orders[column];
  const left = column ? detail.orders[column - 1] : null;
  const box = element("div", "side");
  box.append(element("h4", "", systems[column]));
  const list = element("ol", "ranking");
  order.forEach((passage, place) => {
    const item = element("li", place >= TOP && !detail.labels[passage] ? "deep" : "");
    item.tabIndex = 0;
    item.dataset.passage = passage;
    const head = element("div", "head");
    head.append(element("span", "rank", place + 1));
    for (const part of [left && moved(left.indexOf(passage) - place, systems[column - 1]), label(detail.labels[passage])]) {
      if (part) head.append(part);
    }
    head.append(element("span", "score", number(detail.scores[column][passage], 3)));
    const text = element("div", "text", detail.passages ? detail.passages[passage] : "candidate " + (passage + 1));
    text.dir = "auto";
    item.append(head, text);
    list.append(item);
  });
  box.append(list);
  return box;
}

function together(sides) {
  // The passage under the pointer or the focus is marked in every column.
  const mark = (event, on) => {
    const item = event.target.closest("li[data-passage]");
    if (!item) return;
    for (const same of sides.querySelectorAll('li[data-passage="' + item.dataset.passage + '"]')) same.classList.toggle("same", on);
  };
  for (const name of ["pointerover", "focusin"]) sides.addEventListener(name, (event) => mark(event, true));
  for (const name of ["pointerout", "focusout"]) sides.addEventListener(name, (event) => mark(event, false));
}

function detailBox(detail, systems) {
  const box = element("div", "inside");
  if (detail.query) {
    const query = element("div", "text", detail.query);
    query.dir = "auto";
    box.append(query);
  }
  const sides = element("div", "sides short");
  systems.forEach((_, column) => sides.append(side(detail, systems, column)));
  together(sides);
  box.append(sides);
  if (sides.querySelector(".deep")) {
    const more = button("small more", "Show all " + detail.labels.length + " candidates", () => {
      const short = sides.classList.toggle("short");
      more.textContent = short ? "Show all " + detail.labels.length + " candidates" : "Show the first " + TOP + " and the positives";
    });
    box.append(more);
  }
  return box;
}

// ---- the table

function queryTable(data) {
  const systems = data.systems.length;
  const rows = data.rows.map((row, at) => ({ at, id: row[0], query: data.texts ? row[1] : row[0], values: row[row.length - 1] }));
  const part = (id) => document.getElementById("queries-" + id);
  const body = part("body"), measure = part("measure"), search = part("search"), show = part("show");
  const sort = data.pair ? { column: systems, up: true } : { column: -1, up: true };
  let found = rows, page = 0;

  const value = (row, column) => {
    const first = Number(measure.value) * systems;
    if (column < systems) return row.values[first + column];
    const before = row.values[first], after = row.values[first + 1];
    return before === null || after === null ? null : after - before;
  };
  const change = (row) => Math.round(value(row, systems) * 1e4);
  const wanted = {
    all: () => true,
    lost: (row) => value(row, systems) !== null && change(row) < 0,
    won: (row) => value(row, systems) !== null && change(row) > 0,
    tied: (row) => value(row, systems) !== null && change(row) === 0,
    left: (row) => value(row, 0) === null,
  };

  function compare(one, other) {
    const a = value(one, sort.column), b = value(other, sort.column);
    if (a === null || b === null) return (a === null) - (b === null) || one.at - other.at;
    return (sort.up ? a - b : b - a) || one.at - other.at;
  }

  function find() {
    const words = search.value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    const holds = (row) => {
      const text = row.query.toLocaleLowerCase();
      return words.every((word) => text.includes(word));
    };
    found = rows.filter((row) => wanted[show.value](row) && holds(row));
    if (sort.column >= 0) found.sort(compare);
    page = 0;
    draw();
  }

  function open(line, row) {
    const toggle = line.querySelector("button");
    const next = line.nextElementSibling;
    if (next && next.classList.contains("detail")) {
      next.remove();
      toggle.setAttribute("aria-expanded", "false");
      return;
    }
    const detail = element("tr", "detail");
    const cell = element("td");
    cell.colSpan = line.cells.length;
    detail.append(cell);
    line.after(detail);
    toggle.setAttribute("aria-expanded", "true");
    block(Math.floor(row.at / data.block)).then(
      (queries) => cell.replaceChildren(detailBox(queries[row.at % data.block], data.systems)),
      () => cell.replaceChildren(element("p", "muted", "This browser cannot unpack the rankings: it has no DecompressionStream.")),
    );
  }

  function draw() {
    const lines = found.slice(page * PAGE, (page + 1) * PAGE).map((row) => {
      const line = element("tr");
      const head = element("th");
      head.scope = "row";
      const toggle = button("open", "", () => open(line, row));
      toggle.append(element("span", "", row.query));
      toggle.dir = "auto";
      toggle.setAttribute("aria-expanded", "false");
      head.append(toggle);
      line.append(head);
      for (let column = 0; column < systems; column++) line.append(element("td", "", number(value(row, column), 3)));
      if (data.pair) {
        const by = value(row, systems);
        line.append(element("td", by === null || !change(row) ? "" : by > 0 ? "up" : "down", number(by, 3, true)));
      }
      return line;
    });
    body.replaceChildren(...lines);
    const last = Math.min(found.length, (page + 1) * PAGE);
    const range = found.length ? (page * PAGE + 1).toLocaleString("en") + "–" + last.toLocaleString("en") : "0";
    part("count").textContent = range + " of " + found.length.toLocaleString("en");
    part("previous").disabled = page === 0;
    part("next").disabled = last === found.length;
    for (const head of part("head").querySelectorAll("th")) {
      const column = head.querySelector("button[data-column]");
      if (column) head.setAttribute("aria-sort", Number(column.dataset.column) !== sort.column ? "none" : sort.up ? "ascending" : "descending");
    }
  }

  part("head").addEventListener("click", (event) => {
    const head = event.target.closest("button[data-column]");
    if (!head) return;
    const column = Number(head.dataset.column);
    // The first click on a column puts the lowest values first: where a model fails is what one looks for.
    Object.assign(sort, { up: sort.column === column ? !sort.up : true, column });
    find();
  });
  part("previous").addEventListener("click", () => { page--; draw(); });
  part("next").addEventListener("click", () => { page++; draw(); });
  for (const input of [search, show, measure]) input.addEventListener("input", find);
  part("tools").hidden = false;
  find();
}

themeToggle();
const found = document.getElementById("queries-data");
if (found) queryTable(JSON.parse(found.textContent));
