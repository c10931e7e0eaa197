{
  // Tables by segment: sorted by any column, rows with few results left out, 50 rows at a time. Without it all rows are there.
  const SIZE = 50;
  const make = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
  for (const table of document.querySelectorAll("table[data-rows]")) {
    const given = JSON.parse(document.getElementById("rows-" + table.dataset.rows).textContent);
    const body = table.tBodies[0];
    const rows = [...body.rows].map((element, at) => ({ element, at, numbers: given.numbers[at], results: given.results[at] }));
    if (rows.length < 2) continue;
    let column = null;
    let way = 0;
    let page = 0;

    const bar = make("div");
    bar.className = "browse";
    const label = make("label", "At least ");
    const least = Object.assign(document.createElement("input"), { type: "number", min: 0, value: 0 });
    label.append(least, " " + given.of + " under either policy");
    const back = make("button", "\u2039");
    const on = make("button", "\u203a");
    back.setAttribute("aria-label", "Previous rows");
    on.setAttribute("aria-label", "Next rows");
    const said = make("span", "");
    said.setAttribute("role", "status");
    bar.append(label, back, on, said);
    table.parentElement.before(bar);

    const show = () => {
      const kept = rows.filter((row) => row.results >= (Number(least.value) || 0));
      if (column !== null) {
        // What has no number stays below, whichever way.
        kept.sort((a, b) => {
          const [x, y] = [a.numbers[column], b.numbers[column]];
          if (x === null || y === null) return (x === null) - (y === null) || a.at - b.at;
          return way * (x - y) || a.at - b.at;
        });
      }
      page = Math.max(0, Math.min(page, Math.ceil(kept.length / SIZE) - 1));
      const first = page * SIZE;
      const shown = kept.slice(first, first + SIZE);
      body.replaceChildren(...shown.map((row) => row.element));
      back.disabled = page === 0;
      on.disabled = first + SIZE >= kept.length;
      const range = kept.length ? first + 1 + " to " + (first + shown.length) + " of " : "";
      const out = rows.length - kept.length;
      // Base, candidate, change, of each number.
      const noisy = column !== null && column % 3 === 2 ? ". The largest changes are mostly the noisiest." : "";
      said.textContent = range + kept.length + (out ? ", " + out + " left out" : "") + noisy;
    };

    const headers = [...table.tHead.rows[1].cells];
    headers.forEach((header, at) => {
      const button = make("button", header.textContent);
      button.addEventListener("click", () => {
        way = column === at ? -way : -1;
        column = at;
        page = 0;
        table.querySelector(".order")?.remove();
        headers.forEach((h) => h.removeAttribute("aria-sort"));
        header.setAttribute("aria-sort", way < 0 ? "descending" : "ascending");
        show();
      });
      header.replaceChildren(button);
    });
    least.addEventListener("input", () => ((page = 0), show()));
    back.addEventListener("click", () => (page--, show()));
    on.addEventListener("click", () => (page++, show()));
    // On paper there is nothing to press.
    window.addEventListener("beforeprint", () => body.replaceChildren(...rows.map((row) => row.element)));
    window.addEventListener("afterprint", show);
    show();
  }
}
