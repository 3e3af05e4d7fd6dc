"use strict";
/* The inventory's search, filters, order and pages.  Without this script every
   row is there; with it the screen shows a page of rows at a time (laying out
   thousands takes half a second), and paper shows all of them. */
(function () {
  const PAGE = 100;
  const AT_ONCE = 25; /* a screenful: these answer a keystroke, the page's others follow */

  const table = document.getElementById("inventory");
  if (!table) return;
  const find = (id) => document.getElementById(id);
  const language = document.documentElement.lang;
  const body = table.tBodies[0];
  const heads = Array.from(table.tHead.rows[0].cells);
  const search = find("search");
  const shown = find("shown");
  const selects = Array.from(document.querySelectorAll("select[data-column]"));
  const written = new Intl.NumberFormat(language);
  const collator = new Intl.Collator(language, { numeric: true, sensitivity: "base" });
  const fold = (text) => text.normalize("NFKC").toLowerCase();

  /* A cell is its main text and, after it, the small ones. */
  const lines = (cell) => Array.from(cell.childNodes, (node) => node.textContent);

  let rows = Array.from(body.rows, (row) => ({
    row,
    text: fold(Array.from(row.cells, (cell) => lines(cell).join(" ")).join(" ")),
    cells: Array.from(row.cells, lines),
  }));
  let matching = rows;
  let onPage = rows;
  let first = 0;
  let turns = 0;

  const tests = {
    "by-finding": (cell, wanted) =>
      wanted === "+" ? cell.length > 0 : wanted === "-" ? cell.length === 0 : cell.includes(wanted),
    "by-review": (cell, wanted) => cell.includes(wanted, 1),
  };
  const startsWith = (cell, wanted) => cell[0] === wanted;

  function filter() {
    const words = fold(search.value).split(/\s+/).filter(Boolean);
    const chosen = selects
      .filter((select) => select.value)
      .map((select) => [select.dataset.column, tests[select.id] || startsWith, select.value]);
    matching = rows.filter(
      (one) =>
        words.every((word) => one.text.includes(word)) &&
        chosen.every(([column, test, wanted]) => test(one.cells[column], wanted)),
    );
    show(0);
  }

  /* The page that begins with the row of this place among those that match. */
  function show(place) {
    first = place;
    turns += 1;
    const wanted = matching.slice(first, first + PAGE);
    const now = new Set(wanted.slice(0, AT_ONCE));
    onPage.forEach((one) => now.has(one) || one.row.classList.add("off"));
    onPage = [];
    say(wanted.length);
    fill(wanted, turns);
  }

  function fill(wanted, turn) {
    if (turn !== turns) return;
    const some = wanted.slice(onPage.length, onPage.length + AT_ONCE);
    const placed = (one, at) => body.children[onPage.length + at] === one.row;
    if (!some.every(placed)) {
      const nodes = some.map((one) => one.row);
      if (onPage.length) onPage.at(-1).row.after(...nodes);
      else body.prepend(...nodes);
    }
    some.forEach((one) => one.row.classList.remove("off"));
    onPage = onPage.concat(some);
    const more = onPage.length < wanted.length;
    table.setAttribute("aria-busy", String(more));
    if (more) requestAnimationFrame(() => setTimeout(fill, 0, wanted, turn));
  }

  function say(count) {
    const values = { shown: matching.length, total: rows.length, first: first + 1, last: first + count };
    const filled = (text) => text.replace(/\{(\w+)\}/g, (_, name) => written.format(values[name]));
    const many = matching.length > PAGE;
    shown.textContent = filled(shown.dataset.say) + (many ? " · " + filled(shown.dataset.page) : "");
    find("previous").parentElement.hidden = !many;
    find("previous").disabled = first === 0;
    find("next").disabled = first + PAGE >= matching.length;
  }

  function turn(place) {
    show(place);
    find("scroll").scrollTop = 0;
  }

  function sort(column) {
    const falling = heads[column].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", falling ? "descending" : "ascending");
    const keys = rows.map((one) => key(one, column));
    const said = Array.from(new Set(keys)).filter((one) => one !== null).sort(compare);
    const ranks = new Map(said.map((one, rank) => [one, falling ? -rank : rank]));
    rows = rows
      .map((one, at) => ({ one, at, last: keys[at] === null, rank: ranks.get(keys[at]) || 0 }))
      .sort((a, b) => a.last - b.last || a.rank - b.rank || a.at - b.at)
      .map(({ one }) => one);
    filter();
  }

  /* A number where the cell is one or carries one; null where it says nothing. */
  function key(one, column) {
    const number = column === 0 ? one.cells[0][0] : one.row.cells[column].dataset.n;
    if (number) return Number(number);
    const text = one.cells[column].join("");
    return text === "" || text === table.dataset.unknown ? null : text;
  }

  /* Numbers before texts. */
  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "string" && typeof b === "string") return collator.compare(a, b);
    return (typeof a === "string") - (typeof b === "string");
  }

  function clear() {
    search.value = "";
    selects.forEach((select) => (select.value = ""));
    filter();
  }

  /* A link to a row that is filtered away or on another page brings it here. */
  function reveal(hash) {
    const row = /^#c\d+$/.test(hash) && find(hash.slice(1));
    if (!row || !row.classList.contains("off")) return;
    const place = () => matching.findIndex((one) => one.row === row);
    if (place() < 0) clear();
    show(place());
    row.scrollIntoView();
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });
  search.addEventListener("input", filter);
  selects.forEach((select) => select.addEventListener("change", filter));
  find("clear").addEventListener("click", clear);
  find("previous").addEventListener("click", () => turn(Math.max(0, first - PAGE)));
  find("next").addEventListener("click", () => turn(first + PAGE));
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#c']");
    if (link) reveal(link.hash);
  });
  addEventListener("hashchange", () => reveal(location.hash));

  /* Paper shows all that matches, in the order of the screen. */
  addEventListener("beforeprint", () => {
    rows.forEach((one) => (one.row.hidden = true));
    matching.forEach((one) => (one.row.hidden = false));
    body.append(...matching.map((one) => one.row));
  });
  addEventListener("afterprint", () => {
    rows.forEach((one) => (one.row.hidden = false));
    show(first);
  });

  find("tools").hidden = find("pager").hidden = false;
  filter();
  reveal(location.hash);
})();
