// Draws an answer. Text from the server is set as text and never as markup.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 800; // of all plots, in their own units
const SERIES = 8; // colours of the style sheet
const MARGIN = 2; // bins below and above those of a clip

export function make(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function draw(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function plot(style, height, label, ...children) {
  const view = { class: style, viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none" };
  return draw("svg", { ...view, role: "img", "aria-label": label }, ...children);
}

const percent = (share) => `${(100 * share).toFixed(0)} %`;
const seconds = (value) => `${value.toFixed(1)} s`;

/** A bar from 0 to 1. */
function bar(share) {
  const height = { y: 0, height: 10 };
  return draw(
    "svg",
    { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    draw("rect", { ...height, width: 100, fill: "var(--panel)" }),
    draw("rect", { ...height, width: 100 * share, fill: "var(--accent)" }),
  );
}

/** Probabilities and attributes of a row, or of it without a slot, as a table of bars. */
function bars(row, model, stem, label) {
  const body = make("tbody");
  const top = row[stem ? stem.slice(0, -1) : "prediction"];
  const line = (name, share, shown, style) =>
    body.append(
      make(
        "tr",
        style ? { class: style } : {},
        make("th", { scope: "row", title: name }, name),
        make("td", {}, bar(share)),
        make("td", {}, shown),
      ),
    );
  for (const name of model.classes) {
    const share = row[`${stem}p_${name}`];
    line(name, share, percent(share), name === top ? "top" : "");
  }
  for (const [name, [low, high]] of Object.entries(model.attributes)) {
    const value = row[`${stem}v_${name}`];
    const share = Math.max(0, Math.min(1, (value - low) / (high - low)));
    line(name, share, `${value.toFixed(2)} of ${low} to ${high}`, "");
  }
  return make("table", { class: "bars", "aria-label": label }, body);
}

function known(row, model, stem) {
  const first = model.classes.length
    ? `p_${model.classes[0]}`
    : `v_${Object.keys(model.attributes)[0]}`;
  return row[stem + first] !== null && row[stem + first] !== undefined;
}

/** What the model says of one row. */
function said(row, model) {
  const parts = make("div");
  if (row.error) {
    parts.append(make("p", { class: "warning" }, row.error));
    return parts;
  }
  if (row.prediction) {
    const share = percent(row[`p_${row.prediction}`]);
    parts.append(make("p", { class: "headline" }, `${row.prediction}, ${share}`));
  }
  if (row.asr) parts.append(make("blockquote", {}, row.asr));
  const notes = [...(row.missing.length ? [`without ${row.missing.join(", ")}`] : []), ...row.notices];
  if (notes.length) parts.append(make("p", { class: "note" }, notes.join("; ")));
  parts.append(bars(row, model, "", "Answer"));
  const slots = Object.keys(model.slots).filter((slot) => known(row, model, `without_${slot}_`));
  if (slots.length) {
    const cards = slots.map((slot) =>
      make(
        "div",
        {},
        make("h3", {}, `without ${slot}${row.missing.includes(slot) ? ", as above" : ""}`),
        bars(row, model, `without_${slot}_`, `Answer without ${slot}`),
      ),
    );
    parts.append(make("h2", {}, "Without each modality"));
    parts.append(make("div", { class: "trio", id: "without" }, ...cards));
  }
  return parts;
}

/** Waveform, and below it the bins of its pitch. */
function waveform(clip) {
  const half = 50;
  const peak = Math.max(...clip.highs, ...clip.lows.map((low) => -low), 1e-4);
  const step = WIDTH / Math.max(1, clip.highs.length);
  const y = (sample) => (half - 0.95 * half * (sample / peak)).toFixed(1);
  const path = clip.highs.map((high, i) => `M${(i * step).toFixed(1)} ${y(high)}V${y(clip.lows[i])}`);
  const stroke = { fill: "none", "stroke-width": Math.max(1, step), "stroke-linecap": "butt" };
  const figure = make(
    "figure",
    { id: "wave" },
    plot(
      "wave",
      2 * half,
      `Waveform of ${seconds(clip.seconds)}`,
      draw("path", { d: `M0 ${half}H${WIDTH}`, stroke: "var(--faint)" }),
      draw("path", { ...stroke, d: path.join(""), stroke: "var(--series-0)" }),
    ),
  );
  const { pitch } = clip;
  const voiced = pitch ? pitch.tracks.flat().filter((bin) => bin > 0) : [];
  let caption = `Waveform, ${seconds(clip.seconds)}, up to ${percent(Math.min(1, peak))} of full scale.`;
  if (voiced.length) {
    const low = voiced.reduce((a, b) => Math.min(a, b));
    const high = voiced.reduce((a, b) => Math.max(a, b));
    figure.append(bins(clip, Math.max(1, low - MARGIN), high + MARGIN));
    const hz = (bin) => hertz(pitch, bin).toFixed(0);
    caption +=
      ` F0 in bins ${low} to ${high} of ${pitch.bins}, ${hz(low)} to ${hz(high)} Hz, ` +
      (pitch.of
        ? `as the slot ${pitch.of} reads it.`
        : "estimated for the eye: no slot of the model reads these bins.");
  }
  figure.append(make("figcaption", {}, caption));
  return figure;
}

function bins(clip, low, high) {
  const height = 100;
  const { pitch } = clip;
  const path = [];
  pitch.tracks.forEach((track, number) =>
    track.forEach((bin, frame) => {
      if (!bin) return; // unvoiced
      const x = ((pitch.starts[number] + frame * pitch.hop_seconds) / clip.seconds) * WIDTH;
      const y = height - ((bin - low) / (high - low)) * height;
      const wide = Math.max(1, (pitch.hop_seconds / clip.seconds) * WIDTH);
      path.push(`M${x.toFixed(1)} ${y.toFixed(1)}h${wide.toFixed(2)}`);
    }),
  );
  const line = { d: path.join(""), fill: "none", stroke: "var(--series-1)", "stroke-width": 3 };
  return plot("pitch", height, "F0 bins over time", draw("path", line));
}

function hertz(pitch, bin) {
  const mel = (hz) => 1127 * Math.log1p(hz / 700);
  const low = mel(pitch.f_min);
  const at = low + ((bin - 1) * (mel(pitch.f_max) - low)) / (pitch.bins - 2);
  return 700 * Math.expm1(at / 1127);
}

/** Probabilities of the classes in each window, stacked over time. */
function overTime(rows, model) {
  const height = 100;
  const end = rows[rows.length - 1].stop;
  const boxes = rows.flatMap((row) => {
    let y = height;
    return model.classes.map((name, i) => {
      const tall = height * (row[`p_${name}`] ?? 0);
      y -= tall;
      const x = (row.start / end) * WIDTH;
      const wide = ((row.stop - row.start) / end) * WIDTH - 1;
      const place = { x: x.toFixed(1), y: y.toFixed(2), width: wide.toFixed(1), height: tall.toFixed(2) };
      return draw("rect", { ...place, fill: `var(--series-${i % SERIES})` });
    });
  });
  const key = make("p", { class: "key" });
  model.classes.forEach((name, i) => {
    const box = make("i");
    box.style.background = `var(--series-${i % SERIES})`;
    key.append(make("span", {}, box, name));
  });
  return make(
    "figure",
    { id: "time" },
    plot("time", height, "Probabilities of the classes over time", ...boxes),
    make("figcaption", {}, `Probabilities of the classes from 0 to ${seconds(end)}, a column for each window.`),
    key,
  );
}

function brief(row, model) {
  const span = `${row.start.toFixed(1)} to ${seconds(row.stop)}`;
  if (row.error) return `${span}: failed`;
  const values = Object.keys(model.attributes).map((name) => `${name} ${row[`v_${name}`].toFixed(2)}`);
  return `${span}: ${[...(row.prediction ? [row.prediction] : []), ...values].join(", ")}`;
}

/** All of an answer. */
export function answered({ rows, clip }, model) {
  const parts = [make("h2", {}, "Answer")];
  if (rows.length > 1) {
    if (model.classes.length) parts.push(overTime(rows, model));
    const place = make("div");
    const choose = (number) => {
      place.replaceChildren(said(rows[number], model));
      buttons.forEach((each, i) => each.setAttribute("aria-pressed", String(i === number)));
    };
    const buttons = rows.map((row) => make("button", { type: "button" }, brief(row, model)));
    buttons.forEach((each, number) => each.addEventListener("click", () => choose(number)));
    parts.push(make("ul", { class: "pieces" }, ...buttons.map((each) => make("li", {}, each))), place);
    choose(0);
  } else parts.push(said(rows[0], model));
  if (clip && clip.highs.length) parts.push(make("h2", {}, "Sound"), waveform(clip));
  return parts;
}
