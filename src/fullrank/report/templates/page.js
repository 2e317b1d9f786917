"use strict";
// Draws every figure on the page, in the page's colours and width, showing only the traces that are chosen.
(() => {
  const root = document.documentElement;
  const narrow = matchMedia("(max-width: 640px)");
  const hovers = matchMedia("(hover: hover)");
  const touched = () => narrow.matches || !hovers.matches;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const plots = [...document.querySelectorAll(".plot")];
  const chosen = {};
  for (const button of document.querySelectorAll("[data-choice][aria-pressed=true]")) {
    chosen[button.dataset.choice] = button.dataset.value;
  }

  const shown = (trace) =>
    Object.entries(trace.meta || {}).every(([key, value]) => !(key in chosen) || chosen[key] === value);

  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  function dress(layout) {
    const axis = (own) => ({
      ...own, gridcolor: css("--line"), linecolor: css("--line"), automargin: true,
      title: { ...own.title, font: { size: 12, color: css("--muted") } },
    });
    return {
      ...layout,
      font: { family: css("--font"), size: 12, color: css("--text") },
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
      hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--text") } },
      modebar: { bgcolor: css("--card"), color: css("--muted"), activecolor: css("--text") },
      dragmode: touched() ? false : "zoom", // a finger that scrolls the page must not zoom a figure
    };
  }

  const settings = () => ({
    responsive: true, displaylogo: false, displayModeBar: touched() ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  });

  async function draw() {
    root.dataset.drawn = "no";
    await Promise.all(plots.map((plot) => {
      const spec = JSON.parse(plot.nextElementSibling.textContent);
      const traces = spec.data.map((trace) => (shown(trace) ? trace : { ...trace, visible: false }));
      return Plotly.react(plot, traces, dress(spec.layout), settings());
    }));
    root.dataset.drawn = "yes"; // for who prints or tests the page
  }

  for (const button of document.querySelectorAll("[data-choice]")) {
    button.addEventListener("click", () => {
      chosen[button.dataset.choice] = button.dataset.value;
      for (const other of document.querySelectorAll(`[data-choice="${button.dataset.choice}"]`)) {
        other.setAttribute("aria-pressed", String(other.dataset.value === button.dataset.value));
      }
      draw();
    });
  }
  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
  draw();
})();
