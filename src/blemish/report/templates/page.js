"use strict";
// Sort a table by a click on the head of a column: numbers by value, texts naturally, dashes always last.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const numeric = head.classList.contains("n");
    const was = head.getAttribute("aria-sort");
    const down = was ? was === "ascending" : false;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const text = (row) => row.cells[column].textContent;
    const keyed = [...body.rows].map((row) => ({ row, key: text(row) }));
    keyed.sort((a, b) => {
      const missing = (a.key === "–") - (b.key === "–");
      if (missing) return missing;
      const order = numeric ? parseFloat(a.key) - parseFloat(b.key)
        : a.key.localeCompare(b.key, undefined, { numeric: true });
      return down ? -order : order;
    });
    body.append(...keyed.map((item) => item.row));
  }));
}
// Show only the rows that contain the typed text.
for (const filter of document.querySelectorAll(".filter")) {
  const rows = [...filter.parentElement.querySelector("tbody").rows];
  filter.querySelector("input").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    filter.querySelector("output").textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  });
}
// Enlarge an image; the arrow keys move to the next and the previous image.
const dialog = document.querySelector("dialog");
const large = dialog.querySelector("img");
const images = [...document.querySelectorAll(".panels img")];
let current = 0;
function show(index) {
  current = (index + images.length) % images.length;
  const image = images[current];
  large.src = image.src;
  large.alt = image.alt;
  large.className = image.className;
  dialog.querySelector("p").textContent = image.alt;
  if (!dialog.open) dialog.showModal();
}
images.forEach((image, index) => image.parentElement.addEventListener("click", () => show(index)));
dialog.addEventListener("click", () => dialog.close());
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(current + 1);
  if (event.key === "ArrowLeft") show(current - 1);
});
// Two panels of a row, large and side by side; in turn in one place while "Flicker" is pressed. A click on the image shows the other one.
for (const flicker of document.querySelectorAll(".flicker")) {
  const panels = [...flicker.parentElement.querySelectorAll(".panels img")];
  const [a, b] = flicker.querySelectorAll("select");
  const [left, right] = flicker.querySelectorAll(".pair img");
  const button = flicker.querySelector("button");
  const state = flicker.querySelector("output");
  let timer = null;
  let second = false;
  function draw() {
    const chosen = panels[(second ? b : a).selectedIndex];
    left.src = chosen.src;
    left.alt = chosen.alt;
    right.src = panels[b.selectedIndex].src;
    right.alt = panels[b.selectedIndex].alt;
    state.textContent = second ? "B" : "A";
  }
  function turn() {
    second = !second;
    draw();
  }
  function press(on) {
    button.setAttribute("aria-pressed", String(on));
    flicker.classList.toggle("on", on);
    clearInterval(timer);
    timer = on ? setInterval(turn, 500) : null;
    second = false;
    draw();
  }
  a.addEventListener("change", draw);
  b.addEventListener("change", draw);
  button.addEventListener("click", () => press(timer === null));
  left.addEventListener("click", turn);
  flicker.hidden = false;
  draw();
}
