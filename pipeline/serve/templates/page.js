// The page: takes a clip and words, asks the server, shows what it answers.
import { answered, make } from "./draw.js";
import { readable, record } from "./sound.js";

const at = (id) => document.getElementById(id);
const WINDOWS = [30, 15, 10, 5, 3];
const KEY = "heronry-token";
const FULL = 0.98; // of the bytes that the server takes: there a recording ends by itself

let model = null;
let clip = null; // the file that will be sent
let stop = null; // ends the recording that runs
let switching = false; // whether a recording begins or ends: the browser may ask for permission first
let changes = 0; // of clip and words
let asking = null; // the change whose answer is awaited

/** The token of the address, which is taken out of it, or of an earlier visit. */
function token() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY);
}

async function ask(path, options = {}) {
  const given = token();
  const headers = given ? { Authorization: `Bearer ${given}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer. Is it running?");
  }
  // What stands between may answer in other formats, as may the server with too many connections.
  const content = await response.json().catch(() => null);
  if (response.ok && content) return content;
  if (!content?.problem) throw new Error(`The answer has status ${response.status}. Ask again in some seconds.`);
  throw new Error(`${content.problem}. Expected: ${content.expected}. ${content.remedy}.`);
}

function tell(error) {
  at("status").textContent = "";
  at("problem").replaceChildren(...(error ? [make("p", { class: "warning" }, error.message)] : []));
}

function refresh() {
  const words = at("text").value.trim();
  // Neither while it works: a button that is disabled loses the focus.
  at("predict").disabled = !model || stop !== null || !(clip || words);
  at("record").disabled = !model;
  at("file").disabled = !model;
  at("record").textContent = stop ? "Stop" : "Record";
  at("record").classList.toggle("on", stop !== null);
  if (!stop) at("elapsed").textContent = "";
  at("forget").hidden = !clip;
}

/** Counts a change of clip or words, and takes away what was said before it. */
function changed() {
  changes++;
  at("answer").hidden = true;
  if (model && !stop) tell();
  refresh();
}

function take(file, name) {
  const size = file ? file.size / 1e6 : 0;
  if (size > model.megabytes)
    throw new Error(`${name} has ${size.toFixed(1)} MB. Expected: at most ${model.megabytes} MB.`);
  clip = file;
  const player = at("player");
  if (player.src) URL.revokeObjectURL(player.src);
  player.hidden = !file;
  if (file) player.src = URL.createObjectURL(file);
  else player.removeAttribute("src");
  at("chosen").textContent = file ? name : "or drop one here";
  changed();
}

async function choose(file) {
  tell();
  try {
    take(await readable(file), file.name);
  } catch (error) {
    take(null);
    tell(error);
  }
}

async function toggle() {
  if (switching) return;
  tell();
  switching = true;
  refresh();
  try {
    if (stop) {
      const end = stop;
      stop = null;
      take(await end(), "recorded clip");
    } else {
      take(null);
      stop = await record((seconds, bytes) => {
        if (!stop) return;
        at("elapsed").textContent = `${seconds.toFixed(1)} s`;
        if (seconds >= model.seconds - 0.5 || bytes >= FULL * model.megabytes * 1e6) toggle();
      });
      at("status").textContent = "Recording.";
    }
  } catch (error) {
    tell(error);
  }
  switching = false;
  refresh();
}

/** What the model needs and the form lacks; empty if nothing. */
function lacking(words) {
  const recognised = clip && at("recognise").checked;
  return model.required
    .filter((what) => (what === "audio" ? !clip : !words && !recognised))
    .map((what) => (what === "audio" ? "a clip" : "words"));
}

function asked() {
  const words = at("text").value.trim();
  const lacks = [...new Set(lacking(words))];
  if (lacks.length) throw new Error(`This model needs ${lacks.join(" and ")}.`);
  const form = new FormData();
  if (clip) form.append("audio", clip, "clip");
  const read = Object.values(model.slots);
  if (words && read.includes("text")) form.append("text", words);
  if (words && read.includes("asr")) form.append("asr", words);
  if (at("recognise").checked) form.append("recognise", "true");
  form.append("window", at("window").value);
  return form;
}

async function predict(event) {
  event.preventDefault();
  const sent = changes;
  if (asking === sent) return;
  tell();
  asking = sent;
  try {
    const body = asked();
    at("status").textContent = "Computing.";
    const found = await ask("api/predict", { method: "POST", body });
    if (changes === sent) {
      at("answer").replaceChildren(...answered(found, model));
      at("answer").hidden = false;
      at("status").textContent = "Answered.";
    }
  } catch (error) {
    if (changes === sent) {
      at("answer").hidden = true;
      tell(error);
    }
  }
  if (asking === sent) asking = null;
}

function dropping() {
  const over = (on) => at("drop").classList.toggle("over", on);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  addEventListener("dragleave", () => over(false));
  addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    const [file] = event.dataTransfer.files;
    if (file && model && !at("clip").hidden) choose(file);
  });
}

function describe() {
  const read = Object.values(model.slots);
  const hears = read.includes("audio");
  const reads = read.includes("text") || read.includes("asr");
  at("name").textContent = `${model.name}, trained on ${model.corpus}`;
  const from = Object.entries(model.slots).map(([slot, what]) => `${slot} (${what})`);
  at("about").textContent =
    `From ${from.join(", ")}: ${[...model.classes, ...Object.keys(model.attributes)].join(", ")}. ` +
    (model.models.length > 1 ? `Mean of ${model.models.length} models.` : "");
  at("clip").hidden = !hears && !model.recognises;
  at("words").hidden = !reads;
  at("recognition").hidden = !model.recognises || !reads;
  at("text").maxLength = model.characters;
  at("windows").hidden = at("clip").hidden;
  const lengths = WINDOWS.filter((each) => each <= model.window);
  at("window").replaceChildren(...lengths.map((each) => make("option", { value: each }, `${each} s`)));
}

at("record").addEventListener("click", toggle);
at("file").addEventListener("change", ({ target }) => {
  if (target.files.length) choose(target.files[0]);
  target.value = ""; // so that the same file may be chosen again
});
at("forget").addEventListener("click", () => {
  take(null);
  at("record").focus(); // the button itself is hidden now
});
at("text").addEventListener("input", changed);
at("form").addEventListener("submit", predict);
dropping();
ask("api/model")
  .then((found) => {
    model = found;
    describe();
  })
  .catch(tell)
  .finally(refresh);
