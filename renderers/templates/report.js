"use strict";
(function () {
  const box = document.getElementById("filter");
  const table = document.getElementById("inventory");
  if (!box || !table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const shown = document.getElementById("shown");
  const tools = document.getElementById("tools");
  tools.hidden = false;

  box.addEventListener("input", () => {
    const wanted = box.value.trim().toLowerCase();
    let count = 0;
    rows.forEach((row, place) => {
      row.hidden = !texts[place].includes(wanted);
      if (!row.hidden) count += 1;
    });
    shown.textContent = count + " / " + rows.length;
  });

  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const button = head.querySelector("button");
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort || row.cells[column].textContent.trim();
      const sorted = rows.slice().sort((a, b) => collator.compare(key(a), key(b)));
      if (falling) sorted.reverse();
      body.append(...sorted);
    });
  });
})();
