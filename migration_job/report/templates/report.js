"use strict";
// Search and sorting over what is already on the page; without JavaScript all of it is readable.
for (const tools of document.querySelectorAll(".tools")) {
  const input = tools.querySelector("input");
  const output = tools.querySelector("output");
  const lists = input.dataset.rows.split(" ").map((id) => document.getElementById(id));
  const rows = lists.filter(Boolean).flatMap((list) => [...list.children]);
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts[i].includes(word));
      if (!row.hidden) shown += 1;
    });
    for (const list of lists) {
      const folded = list?.closest("details");
      if (folded && words.length) folded.open = [...list.children].some((row) => !row.hidden);
    }
    output.textContent = words.length ? `${shown} of ${rows.length} shown` : "";
  };
  input.addEventListener("input", show);
  tools.hidden = false;
  show();
}
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const order = (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
      const sorted = [...body.rows].sort(up ? order : (a, b) => order(b, a));
      body.append(...sorted);
    });
  });
}
