"use strict";
// Choices, legends and what is pointed at; every figure is drawn already and stays readable without this script.
(() => {
  const root = document.documentElement;
  const wanted = {}; // by the reader; what he left open is as the page has it

  function choose() {
    const chosen = {};
    const buttons = [...document.querySelectorAll("[data-choice]")];
    for (const { dataset } of buttons) if (wanted[dataset.choice] === dataset.value) chosen[dataset.choice] = dataset.value;
    for (const button of buttons) {
      const { choice, value } = button.dataset;
      if (choice in chosen) button.setAttribute("aria-pressed", String(chosen[choice] === value));
      else if (button.getAttribute("aria-pressed") === "true") chosen[choice] = value;
    }
    for (const plot of document.querySelectorAll(".plot")) {
      plot.hidden = Object.entries(chosen).some(([key, value]) => key in plot.dataset && plot.dataset[key] !== value);
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-choice]");
    if (!button) return;
    wanted[button.dataset.choice] = button.dataset.value;
    choose();
  });

  const place = (axis, value, length) => {
    const at = axis.log ? Math.log : Number;
    return (length * (at(value) - at(axis.low))) / (at(axis.high) - at(axis.low));
  };
  const shows = (axis, value) => value !== null && (!axis.log || value > 0);
  const said = (axis, value) => {
    const scale = axis.percent ? 100 : 1;
    const text = String(Number((value * scale).toPrecision(4)));
    return (axis.percent ? `${text} %` : text).replace("-", "−");
  };

  const bubble = document.createElement("div");
  bubble.className = "bubble";
  bubble.hidden = true;
  document.body.append(bubble);

  function tell(event, colour, lines) {
    bubble.replaceChildren(...lines.filter(Boolean).map((line) => {
      const row = document.createElement("div");
      row.textContent = line;
      return row;
    }));
    bubble.style.borderColor = colour;
    bubble.hidden = false;
    const box = bubble.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - box.width - 8);
    const top = event.clientY - box.height - 12;
    bubble.style.left = `${Math.max(left, 8)}px`;
    bubble.style.top = `${top < 4 ? event.clientY + 16 : top}px`;
  }

  const cell = (edges, value) => edges.findIndex((edge, k) => value >= edge && value < edges[k + 1]);

  function wire(plot) {
    const svg = plot.querySelector("svg");
    const data = JSON.parse(plot.querySelector("script").textContent);
    const [left, top, width, height] = data.box;
    const groups = [...svg.querySelectorAll("[data-series]")];
    const out = (k) => groups.some((g) => g.dataset.series === String(k) && g.style.display === "none");
    for (const key of plot.querySelectorAll("[data-key]")) {
      key.addEventListener("click", () => {
        const names = data.series.map((s) => s.name);
        const off = key.getAttribute("aria-pressed") === "true";
        key.setAttribute("aria-pressed", String(!off));
        for (const g of groups) {
          const same = names[g.dataset.series] === names[key.dataset.key];
          if (g.dataset.series === key.dataset.key || same) g.style.display = off ? "none" : "";
        }
      });
    }

    const mark = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    mark.setAttribute("r", "5");
    mark.setAttribute("class", "mark");
    mark.style.display = "none";
    svg.append(mark);

    const leave = () => { bubble.hidden = true; mark.style.display = "none"; };

    svg.addEventListener("pointermove", (event) => {
      const scale = svg.viewBox.baseVal.width / svg.getBoundingClientRect().width;
      const x = (event.clientX - svg.getBoundingClientRect().left) * scale - left;
      const y = (event.clientY - svg.getBoundingClientRect().top) * scale - top;
      if (x < -8 || y < -8 || x > width + 8 || y > height + 8) return leave();
      if (data.cells) {
        const at = data.x.low + ((data.x.high - data.x.low) * x) / width;
        const on = data.y.low + ((data.y.high - data.y.low) * y) / height;
        const [column, row] = [cell(data.edges[0], at), cell(data.edges[1], on)];
        const value = (data.cells[row] || [])[column];
        if (value === undefined || value === null) return leave();
        return tell(event, "", [`${data.where} ${data.columns[column]}, ${data.row} ${data.rows[row]}`, said({}, value)]);
      }
      let best = null;
      data.series.forEach((series, k) => {
        if (out(k)) return;
        series.x.forEach((value, i) => {
          if (!shows(data.x, value) || !shows(data.y, series.y[i])) return;
          const px = place(data.x, value, width);
          const py = data.dots ? place(data.y, series.y[i], height) : height - place(data.y, series.y[i], height);
          const far = (px - x) ** 2 + (py - y) ** 2;
          if (best === null || far < best.far) best = { far, px, py, series, i };
        });
      });
      if (best === null || best.far > 40 ** 2) return leave();
      mark.style.display = "";
      mark.setAttribute("cx", left + best.px);
      mark.setAttribute("cy", top + best.py);
      mark.setAttribute("stroke", best.series.colour);
      const at = (best.series.at || [])[best.i];
      if (data.dots) {
        return tell(event, best.series.colour, [`${best.series.name}${at ? `, ${at}` : ""}`, said(data.x, best.series.x[best.i])]);
      }
      const name = (data.names || {})[best.series.x[best.i]];
      const where = at || name || `${data.where} ${said(data.x, best.series.x[best.i])}`;
      tell(event, best.series.colour, [best.series.name, `${where}: ${said(data.y, best.series.y[best.i])}`]);
    });
    svg.addEventListener("pointerleave", leave);
  }

  function begin(part) {
    part.querySelectorAll(".plot").forEach(wire);
    choose();
  }

  begin(document);
  window.fullrank = { begin }; // for what is replaced while the page is open
  root.dataset.drawn = "yes"; // for who prints or tests the page
})();
