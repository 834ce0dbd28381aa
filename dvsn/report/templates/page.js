"use strict";
// What the page does: sorts tables, draws charts in the colours of the paper, smooths curves, plays films, enlarges pictures.

const PALETTE = ["#3274c9", "#e07b28", "#2f9e6e", "#c9449a", "#8a63d2", "#b58900", "#17a2b8", "#d64545", "#7a7a7a", "#6b8e23"];
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const figures = [];

// Tables ------------------------------------------------------------------------------------------------

function cellKey(row, place) {
  const cell = row.cells[place];
  const key = cell.dataset.key === undefined ? cell.textContent.trim() : cell.dataset.key;
  const value = Number(key);
  return key === "" ? null : Number.isNaN(value) ? key : value;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, {numeric: true});
}

function sortTable(table, place) {
  const head = table.tHead.rows[0].cells[place];
  const down = head.getAttribute("aria-sort") === "ascending" ||
    (!head.hasAttribute("aria-sort") && head.classList.contains("right"));
  const rows = Array.from(table.tBodies[0].rows, row => [cellKey(row, place), row]);
  rows.sort(([a], [b]) => a === null ? (b === null ? 0 : 1) : b === null ? -1 : down ? compare(b, a) : compare(a, b));
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((cell, place) =>
    cell.querySelector("button").addEventListener("click", () => sortTable(table, place)));
}

// Charts ------------------------------------------------------------------------------------------------

function theme() {
  const style = getComputedStyle(document.documentElement);
  const of = name => style.getPropertyValue(name).trim();
  const axis = {gridcolor: of("--line"), linecolor: of("--line"), zerolinecolor: of("--line"), automargin: true,
    exponentformat: "power", minexponent: 4, title: {standoff: 8, font: {size: 13}}};
  return {layout: {
    colorway: PALETTE, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: {color: of("--ink"), family: "system-ui, sans-serif", size: 12}, title: {font: {size: 15}, x: 0, xref: "paper", xanchor: "left"},
    xaxis: axis, yaxis: axis, margin: {l: 56, r: 14, t: 40, b: 44}, hovermode: "closest",
    hoverlabel: {bgcolor: of("--raised"), bordercolor: of("--line"), font: {color: of("--ink")}},
    modebar: {bgcolor: "rgba(0,0,0,0)", color: of("--quiet"), activecolor: of("--accent")},
    legend: {orientation: "h", y: -0.22, yanchor: "top", x: 0, bgcolor: "rgba(0,0,0,0)"},
  }};
}

const OPTIONS = {displaylogo: false, displayModeBar: window.matchMedia("(hover: hover)").matches ? "hover" : false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"]};

function average(values, weight) {  // an exponential average that is not drawn to 0 at its start
  let sum = 0, total = 0;
  return values.map(value => {
    if (typeof value !== "number" || !Number.isFinite(value)) return value;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

function faded(trace, number) {
  const colour = (trace.line && trace.line.color) || PALETTE[number % PALETTE.length];
  return {...trace, line: {...trace.line, color: colour}, marker: {...trace.marker, color: colour}, opacity: 0.25,
    showlegend: false, hoverinfo: "skip"};
}

function curvesOf(figure) {
  const weight = figure.weight || 0;
  if (!weight) return figure.data;
  const raw = figure.data.map(faded);
  const smooth = figure.data.map((trace, number) => {
    const colour = raw[number].line.color;
    return {...trace, y: average(Array.from(trace.y || []), weight), line: {...trace.line, color: colour},
      marker: {...trace.marker, color: colour}};
  });
  return [...raw, ...smooth];
}

function layoutOf(figure) {
  const layout = {...figure.layout, template: theme()};
  if (figure.logarithm) {
    for (const name of Object.keys(layout)) if (/^yaxis\d*$/.test(name)) layout[name] = {...layout[name], type: "log", autorange: true, range: undefined};
    if (!layout.yaxis) layout.yaxis = {type: "log"};
  }
  return layout;
}

function draw(figure) {
  if (figure.build) Object.assign(figure, figure.build());
  const first = !figure.drawn;
  figure.drawn = true;
  if (first && figure.pick) return Plotly.react(figure.place, figure.data, layoutOf(figure), OPTIONS).then(() =>
    figure.place.on("plotly_click", event => figure.pick(event.points[0])));
  return Plotly.react(figure.place, curvesOf(figure), layoutOf(figure), OPTIONS);
}

function redraw(figure) {  // one that waits for its turn is drawn as it then is
  if (figure.drawn) draw(figure);
}

function prepare(place) {
  const holder = place.querySelector("script");
  if (!holder) return;  // a matrix, which has its own
  const {data, layout} = JSON.parse(holder.textContent);
  watch({place, data, layout, smooth: place.hasAttribute("data-smooth")});
}

function watch(figure) {
  figures.push(figure);
  new ResizeObserver(() => { if (figure.drawn) Plotly.Plots.resize(figure.place); }).observe(figure.place);
}

function distance(figure) {  // pixels between it and the screen; 0 on the screen
  const box = figure.place.getBoundingClientRect();
  return Math.max(0, box.top - window.innerHeight, -box.bottom);
}

function drawAll() {  // one after another, so that the page can be read and scrolled meanwhile; what is nearest to the screen first
  const waiting = figures.filter(figure => !figure.drawn);
  const next = () => {
    if (!waiting.length) {
      performance.mark("drawn");
      return document.documentElement.setAttribute("data-drawn", String(figures.length));
    }
    const far = waiting.map(distance), nearest = Math.min(...far);
    const [figure] = waiting.splice(far.indexOf(nearest), 1);
    draw(figure);
    performance.mark("chart", {detail: figure.place.getAttribute("aria-label")});
    setTimeout(next, 0);
  };
  setTimeout(next, 0);
}

for (const box of document.querySelectorAll(".controls")) {
  const slider = box.querySelector(".smoothing"), logarithm = box.querySelector(".logarithm");
  if (!slider) continue;
  const own = () => figures.filter(figure => figure.smooth && box.closest("section").contains(figure.place));
  slider.addEventListener("input", () => {
    box.querySelector("output").textContent = Number(slider.value).toFixed(2);
    for (const figure of own()) { figure.weight = Number(slider.value); redraw(figure); }
  });
  logarithm.addEventListener("change", () => {
    for (const figure of own()) { figure.logarithm = logarithm.checked; redraw(figure); }
  });
}

// Brushes of lines over several axes ------------------------------------------------------------------------

function brush(figure) {  // a drag along an axis leaves the lines that cross it there, a click on it brings the others back
  const whole = figure.data, shapes = figure.layout.shapes, axes = figure.layout.xaxis.tickvals.length, kept = new Map();
  let drag = null;
  const at = event => {
    const box = figure.place.querySelector(".nsewdrag").getBoundingClientRect(), {xaxis: {range: x}, yaxis: {range: y}} = figure.layout;
    return [x[0] + (x[1] - x[0]) * (event.clientX - box.left) / box.width, y[0] + (y[1] - y[0]) * (box.bottom - event.clientY) / box.height];
  };
  const show = () => {
    let all = 0, some = 0;
    figure.data = whole.map(trace => {
      const y = Array.from(trace.y);
      for (let start = 0; start < y.length; start += axes + 1) {  // a line ends with a gap
        const stays = Array.from(kept).every(([axis, [low, high]]) => y[start + axis] !== null && y[start + axis] >= low && y[start + axis] <= high);
        all += 1;
        some += stays;
        if (!stays) y.fill(null, start, start + axes);
      }
      return {...trace, y};
    });
    const boxes = Array.from(kept, ([axis, [low, high]]) => ({type: "rect", x0: axis - 0.06, x1: axis + 0.06, y0: low, y1: high,
      line: {width: 1, color: PALETTE[1]}, fillcolor: "rgba(224,123,40,0.25)"}));
    figure.layout = {...figure.layout, shapes: [...shapes, ...boxes], title: {text: kept.size ? some + " of " + all + " trials" : ""}};
    draw(figure);
  };
  figure.place.addEventListener("pointerdown", event => {
    const [x, y] = figure.drawn && event.pointerType !== "touch" ? at(event) : [-1, -1], axis = Math.round(x);
    if (axis >= 0 && axis < axes && Math.abs(x - axis) < 0.25 && y > -0.06 && y < 1.06) drag = {axis, from: y, to: y};
  });
  window.addEventListener("pointermove", event => {
    if (!drag) return;
    drag.to = at(event)[1];
    kept.set(drag.axis, [Math.min(drag.from, drag.to), Math.max(drag.from, drag.to)]);
    show();
  });
  window.addEventListener("pointerup", () => {
    if (drag && Math.abs(drag.to - drag.from) < 0.01 && kept.delete(drag.axis)) show();
    drag = null;
  });
}

// Films and large pictures ------------------------------------------------------------------------------

for (const film of document.querySelectorAll(".film")) {
  const slider = film.querySelector("input"), said = film.querySelector("output"), play = film.querySelector(".play");
  const frames = Array.from(film.querySelectorAll(".enlarge"));
  if (!slider) continue;  // a single picture
  let timer = null;
  const show = place => {
    frames.forEach((frame, number) => { frame.hidden = number !== place; });
    slider.value = place;
    said.textContent = frames[place].querySelector("img").alt;
  };
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "play"; };
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    play.textContent = "stop";
    timer = setInterval(() => show((Number(slider.value) + 1) % frames.length), 700);
  });
}

const large = document.getElementById("large");
document.addEventListener("click", event => {
  const button = event.target.closest(".enlarge");
  if (!button) return;
  const image = button.querySelector("img").cloneNode();
  large.querySelector(".large").replaceChildren(image);
  large.querySelector("p").textContent = image.alt;
  large.showModal();
});
large.addEventListener("click", event => { if (event.target === large) large.close(); });

// Matrices ----------------------------------------------------------------------------------------------

const BLUE = [[0, "rgba(50,116,201,0.04)"], [1, "rgba(50,116,201,0.65)"]];
const ORANGE = [[0, "rgba(224,123,40,0.05)"], [0.25, "rgba(224,123,40,0.45)"], [1, "rgba(224,110,40,0.9)"]];
const plain = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const clipped = text => plain(text.length > 24 ? text.slice(0, 23) + "\u2026" : text);
const percent = share => (100 * share).toFixed(share && share < 0.1 ? 1 : 0) + " %";

function readMatrix(box) {
  const held = JSON.parse(box.querySelector("script.cells").textContent);
  const count = (row, column) => held.counts[row + "-" + column] || 0;
  const share = (row, column) => held.totals[row] ? count(row, column) / held.totals[row] : 0;
  return {...held, box, count, share, right: (row, column) => held.rows[row] === held.columns[column]};
}

function cellText(matrix, row, column) {
  const verb = matrix.right(row, column) ? "" : ", taken for " + matrix.columns[column];
  return matrix.rows[row] + verb + ": " + matrix.count(row, column).toLocaleString("en") + " " + matrix.unit +
    " (" + percent(matrix.share(row, column)) + " of " + matrix.rows[row] + ")";
}

function buildMatrix(matrix) {  // right and wrong cells have a scale each, so that few errors are seen beside many right ones
  const [rows, columns] = matrix[matrix.box.querySelector(".order").value];
  const shares = matrix.box.querySelector(".shade").value === "share";
  const value = (row, column) => shares ? matrix.share(row, column) : matrix.count(row, column);
  const wrong = Math.max(1e-12, ...rows.flatMap(row => columns.map(column => matrix.right(row, column) ? 0 : value(row, column))));
  const few = columns.length <= 20 && rows.length <= 20;
  const trace = (right, colorscale, top) => ({
    type: "heatmap", colorscale, showscale: false, zmin: 0, zmax: top, xgap: 1, ygap: 1, hoverongaps: false,
    z: rows.map(row => columns.map(column => matrix.right(row, column) === right ? value(row, column) : null)),
    text: rows.map(row => columns.map(column => matrix.share(row, column) >= 0.005 ? Math.round(100 * matrix.share(row, column)) : "")),
    texttemplate: few ? "%{text}" : "", textfont: {size: 11, color: getComputedStyle(document.body).color},
    customdata: rows.map(row => columns.map(column => plain(cellText(matrix, row, column)))),
    hovertemplate: "%{customdata}<extra></extra>",
  });
  const data = [trace(true, BLUE, shares ? 1 : Math.max(...Object.values(matrix.counts), 1e-12)), trace(false, ORANGE, wrong)];
  const axis = (names, order, title) => ({title: {text: title}, tickvals: order.map((_, place) => place),
    ticktext: order.map(number => clipped(names[number])), showgrid: false, zeroline: false, fixedrange: false});
  return {data, layout: {
    xaxis: {...axis(matrix.columns, columns, "predicted"), tickangle: -45}, margin: {t: 10},
    yaxis: {...axis(matrix.rows, rows, "true"), autorange: "reversed"},
  }};
}

function openCell(matrix, row, column) {
  const behind = matrix.box.querySelector(".behind");
  const head = document.createElement("p"), gallery = document.createElement("div"), rest = document.createElement("p");
  head.textContent = cellText(matrix, row, column);
  head.className = "cell";
  gallery.className = "gallery";
  rest.className = "quiet";
  const names = [];
  const [all, some] = matrix.cells[row + "-" + column] || [0, []];
  for (const [number, count] of some) {
    const [name, anchor] = matrix.pictures[number];
    const source = anchor && document.getElementById(anchor);
    const said = matrix.unit === "pictures" ? name : name + " (" + count.toLocaleString("en") + " " + matrix.unit + ")";
    if (!source) { names.push(said); continue; }
    const copy = source.cloneNode(true);
    copy.removeAttribute("id");
    copy.querySelector("figcaption").textContent = said;
    gallery.append(copy);
  }
  const kept = gallery.children.length, more = all - kept - names.length;
  rest.textContent = all ? kept + " of " + all.toLocaleString("en") + " pictures with it are shown." + (names.length ?
    " Not kept by the evaluation: " + names.join(", ") + (more ? " and " + more.toLocaleString("en") + " more" : "") + "." : "") :
    matrix.right(row, column) ? "Right answers are not listed by picture." : "No picture has this among its largest confusions.";
  behind.replaceChildren(head, gallery, rest);
}

const matrices = new Map();
for (const box of document.querySelectorAll("[data-matrix]")) {
  const matrix = readMatrix(box), figure = {place: box.querySelector("[data-figure]")};
  const orders = () => matrix[box.querySelector(".order").value];
  figure.build = () => buildMatrix(matrix);
  figure.pick = point => {
    const [rows, columns] = orders();
    history.replaceState(null, "", "#" + [matrix.key, rows[point.y], columns[point.x]].join("-"));
    openCell(matrix, rows[point.y], columns[point.x]);
  };
  for (const choice of box.querySelectorAll("select")) choice.addEventListener("change", () => redraw(figure));
  matrices.set(matrix.key, matrix);
  watch(figure);
}

function followHash(behavior) {  // #confusion-3-5 opens the cell of row 3 and column 5
  const asked = /^#(.+)-(\d+)-(\d+)$/.exec(window.location.hash);
  const matrix = asked && matrices.get(asked[1]);
  if (!matrix || asked[2] >= matrix.rows.length || asked[3] >= matrix.columns.length) return;
  openCell(matrix, Number(asked[2]), Number(asked[3]));
  matrix.box.querySelector(".behind").scrollIntoView({behavior});
}

window.addEventListener("hashchange", () => followHash("auto"));

// Start -------------------------------------------------------------------------------------------------

document.querySelectorAll("[data-figure]").forEach(prepare);
figures.filter(figure => figure.place.hasAttribute("data-brush")).forEach(brush);
figures.sort((a, b) => a.place.compareDocumentPosition(b.place) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1);
followHash("instant");  // so that the charts there are the first
document.addEventListener("DOMContentLoaded", () => { if (figures.length) drawAll(); });  // plotly's script is below this one
dark.addEventListener("change", () => figures.forEach(redraw));
