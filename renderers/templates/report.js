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
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const key = (row) => row.cells[column].dataset.sort || row.cells[column].textContent.trim();
    const sort = () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const sorted = rows.slice().sort((a, b) => collator.compare(key(a), key(b)));
      (falling ? sorted.reverse() : sorted).forEach((row) => body.append(row));
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort();
    });
  });
})();
