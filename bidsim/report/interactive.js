{
  // A live chart in the place of each picture. Whatever goes wrong, the picture stays.
  const options = {
    ast: true,
    actions: false,
    renderer: "svg",
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true, theme: "custom" },
  };
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const given = document.getElementById("spec-" + figure.dataset.chart);
    const picture = figure.querySelector("svg");
    if (!given || !picture) continue;
    const live = document.createElement("div");
    live.className = "live";
    window
      .vegaEmbed(live, JSON.parse(given.textContent), options)
      .then(() => {
        const drawn = live.querySelector("svg");
        drawn.setAttribute("role", "img");
        drawn.setAttribute("aria-label", picture.getAttribute("aria-label"));
        picture.replaceWith(live);
        figure.classList.add("is-live");
      })
      .catch((error) => console.warn("bidsim: a chart stays a picture:", error));
  }
}
