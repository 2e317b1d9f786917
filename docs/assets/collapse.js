// Figures of the page "What collapse is": inline SVG from the data in the page, one slider each, no library.
"use strict";

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const SHAPES = [
    (x, y, r) => `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
    (x, y, r) => `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
    (x, y, r) => `M${x},${y - 1.3 * r}l${1.3 * r},${2.2 * r}h${-2.6 * r}z`,
    (x, y, r) => `M${x},${y - 1.4 * r}l${1.4 * r},${1.4 * r}l${-1.4 * r},${1.4 * r}l${-1.4 * r},${-1.4 * r}z`,
  ];

  /** An SVG element with attributes, and text or children. */
  const element = (name, attributes = {}, inner = "") => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (typeof inner === "string") made.textContent = inner;
    else made.append(...inner);
    return made;
  };
  const html = (name, className, text = "") => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.textContent = text;
    return made;
  };
  const scale = (low, high, from, to) => (value) => from + ((to - from) * (value - low)) / (high - low);
  const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");

  /** Grid, ticks and titles of two axes. */
  const axes = (box, x, y, xTicks, yTicks, xTitle, yTitle) => {
    const parts = [];
    for (const tick of yTicks) {
      parts.push(element("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }));
      parts.push(element("text", { x: box.left - 8, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
    }
    for (const tick of xTicks) {
      parts.push(element("text", { x: x(tick), y: box.bottom + 18, "text-anchor": "middle" }, String(tick)));
    }
    const middle = (box.left + box.right) / 2;
    parts.push(element("text", { x: middle, y: box.bottom + 40, "text-anchor": "middle" }, xTitle));
    parts.push(element("text", { x: box.left, y: box.top - 10, "text-anchor": "start" }, yTitle));
    return parts;
  };

  /** A table of what the arms read now. */
  const table = (columns, rows) => {
    const made = html("table", "readout");
    const head = made.createTHead().insertRow();
    for (const name of columns) {
      const cell = html("th", "", name);
      cell.scope = "col";
      head.append(cell);
    }
    const body = made.createTBody();
    for (const row of rows) {
      const line = body.insertRow();
      row.forEach((text, i) => {
        const cell = html(i ? "td" : "th", "", String(text));
        if (!i) cell.scope = "row";
        line.append(cell);
      });
    }
    return made;
  };
  const number = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));

  const BOX = { left: 52, right: 640, top: 34, bottom: 300, width: 660, height: 350 };

  const level = (data) => {
    const arms = Object.entries(data.arms);
    const losses = arms.flatMap(([, epochs]) => epochs.map((e) => e.loss).filter((v) => v !== null));
    const x = scale(Math.min(-1, ...losses), Math.max(...losses), BOX.left, BOX.right);
    const y = scale(0, 1.05, BOX.bottom, BOX.top);
    return {
      steps: arms[0][1].length,
      from: 1,
      last: arms[0][1].length - 1,
      say: (t) => `epoch ${t}`,
      title: "Loss and level of four arms of fullrank demo, with their way so far",
      plot: (t) => {
        const parts = axes(BOX, x, y, [-1, -0.8, -0.6, -0.4, -0.2], [0, 0.2, 0.4, 0.6, 0.8, 1],
          "loss (left is better)", "level (normalized std)");
        parts.push(element("line", { class: "at", x1: BOX.left, x2: BOX.right, y1: y(0.05), y2: y(0.05) }));
        parts.push(element("text", { x: BOX.right, y: y(0.05) - 6, "text-anchor": "end" }, "a point, below 0.05"));
        arms.forEach(([, epochs], i) => {
          const way = epochs.slice(1, t + 1).map((e) => [x(e.loss), y(e.level)]);
          parts.push(element("path", { class: `line arm${i}`, d: path(way) }));
          const [a, b] = way[way.length - 1];
          parts.push(element("path", { class: `mark arm${i}`, d: SHAPES[i](a, b, 6) }));
        });
        return parts;
      },
      read: (t) => table(["arm", "verdict", "loss", "level", "rank", "k-NN"], arms.map(([name, epochs]) => {
        const e = epochs[t];
        return [name, e.verdict, number(e.loss, 3), number(e.level, 3), number(e.rank, 1),
          e.knn === null ? "–" : `${(100 * e.knn).toFixed(1)} %`];
      })),
      key: arms.map(([name]) => name),
    };
  };

  const spectrum = (data) => {
    const arms = Object.entries(data.arms);
    const x = scale(1, data.width, BOX.left, BOX.right);
    const y = scale(-5, 0.1, BOX.bottom, BOX.top);
    const line = (values) => path(values.map((v, k) => [x(k + 1), y(Math.max(v, -5))]));
    return {
      steps: arms[0][1].length,
      from: 0,
      last: arms[0][1].length - 1,
      say: (t) => (t ? `epoch ${t}` : "untrained"),
      title: "Singular values of unit rows of the projector, as a share of the largest",
      plot: (t) => [
        ...axes(BOX, x, y, [1, 32, 64, 96, 128].filter((k) => k <= data.width), [-5, -4, -3, -2, -1, 0],
          "direction, largest first", "log10 of the singular value over the largest"),
        element("path", { class: "line base", d: line(data.baseline) }),
        ...arms.map(([, epochs], i) => element("path", { class: `line arm${i}`, d: line(epochs[t].spectrum) })),
      ],
      read: (t) => table(["arm", "verdict", "effective rank", "k-NN"], arms.map(([name, epochs]) => {
        const e = epochs[t];
        return [name, e.verdict, `${number(e.rank, 1)} of ${data.width}`,
          e.knn === null ? "–" : `${(100 * e.knn).toFixed(1)} %`];
      })),
      key: [...arms.map(([name]) => name), "isotropic noise"],
    };
  };

  const overEpochs = (runs) => {
    const steps = runs[0][1].epochs.length;
    return { steps, from: 0, last: steps - 1, say: (t) => (t ? `epoch ${t}` : "untrained") };
  };

  const clusters = (data) => {
    const runs = [["DINO", data.dino], ["DINO without centring", data["dino-no-centring"]]];
    const every = runs.flatMap(([, run]) => run.epochs.flatMap((e) => e.points.flat()));
    const reach = 1.05 * Math.max(...every.map(Math.abs));
    return {
      ...overEpochs(runs),
      title: "160 held-out images in the plane of the two largest axes of their assignments to codes, shapes and colours by class",
      plot: (t) => runs.flatMap(([name, run], side) => {
        const left = 20 + 330 * side;
        const x = scale(-reach, reach, left, left + 300);
        const y = scale(-reach, reach, 320, 30);
        const parts = [element("rect", { class: "frame", x: left, y: 30, width: 300, height: 290 }),
          element("text", { x: left + 150, y: 20, "text-anchor": "middle" }, name)];
        run.epochs[t].points.forEach(([a, b], i) => {
          const label = run.labels[i];
          const d = SHAPES[label % SHAPES.length](x(a), y(b), 3.2);
          parts.push(element("path", { class: `mark arm${label % 5}`, d }));
        });
        return parts;
      }),
      read: (t) => table(["run", "codes in use", "share of the largest"], runs.map(([name, run]) => {
        const e = run.epochs[t];
        return [name, `${number(e.codes, 1)} of ${e.of}`, `${(100 * e.largest).toFixed(1)} %`];
      })),
      key: [],
    };
  };

  const tokens = (data) => {
    const runs = [["teacher frozen", data["tokens-frozen"]], ["both trained", data["tokens-trained"]]];
    return {
      ...overEpochs(runs),
      title: "Cosine of the output at each patch with that of the middle one (outlined): pale is 0 and less, dark is 1",
      plot: (t) => runs.flatMap(([name, run], side) => {
        const left = 40 + 330 * side;
        const size = 270 / run.side;
        const parts = [element("text", { x: left + 135, y: 24, "text-anchor": "middle" }, name)];
        run.epochs[t].map.forEach((value, i) => {
          const [row, column] = [Math.floor(i / run.side), i % run.side];
          const cell = { class: "heat", x: left + size * column, y: 36 + size * row, width: size - 1, height: size - 1 };
          cell["fill-opacity"] = Math.max(0.04, value).toFixed(3);
          parts.push(element("rect", cell, [element("title", {}, `cosine ${value.toFixed(2)}`)]));
        });
        const at = [run.middle % run.side, Math.floor(run.middle / run.side)];
        const outline = { class: "outline", x: left + size * at[0], y: 36 + size * at[1], width: size - 1, height: size - 1 };
        parts.push(element("rect", outline));
        return parts;
      }),
      read: (t) => table(["run", "mean cosine over all patches of 32 images"], runs.map(([name, run]) =>
        [name, number(run.epochs[t].mean, 3)])),
      key: [],
    };
  };

  const FIGURES = { level, spectrum, clusters, tokens };

  /** Make a figure with its slider in its place. */
  const build = (place) => {
    const data = JSON.parse(document.getElementById(`data-${place.dataset.from}`).textContent);
    const name = place.dataset.figure;
    const figure = FIGURES[name](data);
    const picture = element("svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img", "aria-label": figure.title });
    const scroll = html("div", "scroll");
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "group");
    scroll.setAttribute("aria-label", figure.title);
    scroll.append(picture);
    const slider = html("input");
    Object.assign(slider, { type: "range", min: figure.from, max: figure.last, value: figure.last, id: `slider-${name}` });
    const label = html("label", "", "Epoch");
    label.htmlFor = slider.id;
    const now = html("output");
    now.htmlFor = slider.id;
    const controls = html("div", "slider");
    controls.append(label, slider, now);
    const values = html("div", "values scroll");
    values.tabIndex = 0;
    values.setAttribute("role", "group");
    values.setAttribute("aria-label", "what the arms read at this epoch");
    const key = html("div", "key");
    figure.key.forEach((words, i) => {
      const mark = element("svg", { width: 26, height: 14, viewBox: "0 0 26 14", "aria-hidden": "true" }, [
        element("path", { class: `line ${i < 4 ? `arm${i}` : "base"}`, d: "M1,7h24" }),
        ...(name === "level" ? [element("path", { class: `mark arm${i}`, d: SHAPES[i](13, 7, 5) })] : []),
      ]);
      const entry = html("span");
      entry.append(mark, ` ${words}`);
      key.append(entry);
    });
    const show = () => {
      const t = Number(slider.value);
      picture.replaceChildren(...figure.plot(t));
      values.replaceChildren(figure.read(t));
      now.textContent = figure.say(t);
      slider.setAttribute("aria-valuetext", figure.say(t));
    };
    slider.addEventListener("input", show);
    show();
    place.replaceChildren(controls, scroll, key, values, html("figcaption", "", `${figure.title}.`));
  };

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("figure[data-figure]").forEach(build));
})();
