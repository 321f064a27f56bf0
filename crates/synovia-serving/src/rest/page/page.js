"use strict";

// A client of the addresses in /openapi.json, like any other. What comes of files is set as text, never as HTML.

const at = (id) => document.getElementById(id);
const chosen = [];
let described = null;
let asked = 0;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const percent = (p) => (p > 0 && p < 0.001 ? "below 0.1 %" : p > 0.999 && p < 1 ? "above 99.9 %" : `${(100 * p).toFixed(1)} %`);
const signed = (p) => `${p > 0 ? "+" : p < 0 ? "−" : "±"}${(100 * Math.abs(p)).toFixed(1)}`;
const cell = (text, number = false) => element("td", number ? { class: "n" } : {}, text);
const head = (...names) => element("thead", {}, element("tr", {}, ...names.map(([text, n]) => element("th", { scope: "col", class: n ? "n" : null }, text))));

function table(names, rows, label) {
  return element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, element("table", {}, head(...names), element("tbody", {}, ...rows)));
}

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

async function ask(path, options) {
  const answer = await fetch(path, options);
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.error || answer.statusText), { body });
  return body;
}

// Which field of the form a file is for.
function fieldOf(name) {
  return /\.(json|ndjson|csv)$/i.test(name) ? "records" : "images";
}

function choose(files) {
  chosen.push(...files);
  at("chosen").replaceChildren(...chosen.map((file) => element("li", {}, `${file.name} (${fieldOf(file.name) === "images" ? "image" : "record"})`)));
  say("");
}

function outcomes(task, prediction) {
  const set = prediction.prediction_sets[task];
  const rows = Object.entries(prediction.probabilities[task]).map(([name, p]) =>
    element("tr", {}, cell(name), cell(percent(p), true), element("td", {}, element("meter", { min: 0, max: 1, value: p, "aria-label": `${task}, ${name}` }, percent(p)))));
  const parts = [element("h3", {}, task), table([["Class"], ["Probability", true], ["From 0 to 1"]], rows, `Probabilities of ${task}`)];
  if (set) parts.push(element("p", {}, `Not excluded at a coverage of ${percent(set.coverage)}: ${set.classes.join(", ") || "none"}. (Fitted on ${set.calibrated_on} validation examples that have what this one has: ${set.pattern}.)`));
  return parts;
}

function modalities(task, explained) {
  const { neither, image_alone, record_alone, image_share, record_share } = explained.modalities;
  const row = (name, p, share) => element("tr", {}, cell(name), cell(p === null ? "–" : percent(p), true), cell(share === null ? "" : signed(share), true));
  const rows = [row("What was given", explained.probability, null)];
  if (image_alone !== null) rows.push(row("The image alone", image_alone, image_share));
  if (record_alone !== null) rows.push(row("The record alone", record_alone, record_share));
  rows.push(row("Neither", neither, null));
  return table([[`${task}: ${explained.class}`], ["Probability", true], ["Share, points", true]], rows, `Modalities of ${task}`);
}

function features(task, explained) {
  const strongest = explained.features.slice(0, 12).filter((feature) => Math.abs(feature.change) >= 0.0005);
  if (strongest.length === 0) return element("p", { class: "hint" }, "No feature of the record moves it by as much as a tenth of a point.");
  const rows = strongest.map(({ feature, value, unit, change }) =>
    element("tr", {}, cell(feature), cell(`${Number(value.toPrecision(4))} ${unit}`.trim(), true), element("td", { class: `n ${change > 0 ? "raises" : "lowers"}` }, signed(change))));
  return table([["Feature"], ["Value", true], ["With it, points", true]], rows, `Features of ${task}`);
}

function picture(task, explanation, number) {
  const source = (name) => `data:image/png;base64,${name}`;
  const plain = source(explanation.image_png);
  const overlaid = source(explanation.overlay_png[task] || explanation.image_png);
  const image = element("img", { src: overlaid, alt: `The image as the model sees it, with the places that drive ${task}` });
  const ids = ["heat", "brightness", "contrast"].map((name) => `${name}-${number}`);
  const heat = element("input", { type: "checkbox", id: ids[0], checked: true });
  const range = (id) => element("input", { type: "range", id, min: 20, max: 300, value: 100 });
  const [brightness, contrast] = [range(ids[1]), range(ids[2])];
  heat.addEventListener("change", () => (image.src = heat.checked ? overlaid : plain));
  const window = () => (image.style.filter = `brightness(${brightness.value}%) contrast(${contrast.value}%)`);
  [brightness, contrast].forEach((control) => control.addEventListener("input", window));
  const labels = ["Heat map", "Brightness", "Contrast"].map((text, k) => element("label", { for: ids[k] }, text));
  const caption = "Red places raise the probability, blue ones lower it: each was levelled in turn, and the model asked again. It is what the model does, not what is true.";
  return element("figure", {}, image, element("div", { class: "controls" }, labels[0], heat, labels[1], brightness, labels[2], contrast), element("figcaption", {}, caption));
}

function shown(prediction, number) {
  const { image, record } = prediction.present;
  const made = element("article", {}, element("h2", {}, `Prediction ${number}`));
  made.append(element("p", {}, image && record ? "Made of an image and a record." : image ? "Made of an image alone." : "Made of a record alone."));
  for (const outside of prediction.out_of_range || []) {
    made.append(element("p", { class: "warning" }, `${outside.feature}: ${outside.value} ${outside.unit} is beyond the middle 98 % of the training's records (${outside.range[0]} to ${outside.range[1]}).`));
  }
  if (prediction.novelty && prediction.novelty.is_novel) {
    made.append(element("p", { class: "warning" }, "To the model this looks unlike what it was trained on: no more than one in a hundred of its validation examples is as far from the others. Its answer may mean nothing."));
  }
  for (const [name, estimates] of Object.entries(prediction.estimates || {})) {
    const rows = Object.entries(estimates).map(([what, value]) => element("tr", {}, cell(what.replaceAll("_", " ")), cell(value.toPrecision(4))));
    made.append(element("h3", {}, name), table([["What"], ["Estimate"]], rows, `Estimates of ${name}`));
  }
  for (const task of Object.keys(prediction.probabilities)) {
    made.append(...outcomes(task, prediction));
    const explained = prediction.explanation && prediction.explanation.tasks[task];
    if (!explained) continue;
    const parts = element("div", {}, element("h3", {}, "What drove it"), modalities(task, explained));
    if (record) parts.append(features(task, explained));
    asked += 1;
    made.append(image ? element("div", { class: "two" }, picture(task, prediction.explanation, asked), parts) : parts);
  }
  return made;
}

function refused(rejected) {
  const rows = rejected.map(({ source, position, reason }) => element("tr", {}, cell(source), cell(position), cell(reason)));
  return element("article", {}, element("h2", {}, "Not taken"), table([["File, by its place"], ["Where"], ["Why"]], rows, "Not taken"));
}

async function predict(event) {
  event.preventDefault();
  if (chosen.length === 0) return say("Choose files first.", true);
  const form = new FormData();
  // Names of files may be patients', and stay here.
  chosen.forEach((file) => form.append(fieldOf(file.name), file, "file"));
  const path = `/v1/models/${encodeURIComponent(at("model").value)}/predict`;
  const explain = at("explain").checked;
  say(explain ? "The model is asked, and asked again with parts taken away…" : "The model is asked…");
  at("predict").disabled = true;
  at("results").hidden = true;
  try {
    if (explain) form.append("explain", "true");
    let answer;
    try {
      answer = await ask(path, { method: "POST", body: form });
    } catch (error) {
      if (!explain || !/one prediction at a time/.test(error.message)) throw error;
      form.delete("explain");
      answer = await ask(path, { method: "POST", body: form });
    }
    const parts = answer.predictions.map((prediction, k) => shown(prediction, k + 1));
    if (answer.rejected.length > 0) parts.push(refused(answer.rejected));
    at("results").replaceChildren(...parts);
    at("results").hidden = false;
    say(`${answer.predictions.length} prediction${answer.predictions.length === 1 ? "" : "s"} by ${answer.model.name} version ${answer.model.version} (SHA-256 ${answer.model.sha256.slice(0, 12)}…). ${answer.intended_use}`);
  } catch (error) {
    say(error.message, true);
    if (error.body && error.body.rejected) {
      at("results").replaceChildren(refused(error.body.rejected));
      at("results").hidden = false;
    }
  } finally {
    at("predict").disabled = false;
  }
  status();
}

async function describe() {
  const name = at("model").value;
  if (!name) return;
  try {
    described = await ask(`/v1/models/${encodeURIComponent(name)}`);
  } catch (error) {
    at("card").replaceChildren(element("p", { class: "hint" }, error.message));
    return;
  }
  at("use").textContent = described.intended_use;
  const line = (name, text) => element("tr", {}, element("th", { scope: "row" }, name), cell(text));
  const tasks = described.tasks.map((task) => `${task.name} (${task.kind}: ${task.classes.join(", ")})`).join("; ");
  const image = described.image ? `${described.image.size} × ${described.image.size}, ${described.image.channels === 1 ? "grey" : `${described.image.channels} channels`}` : "not looked at";
  const record = described.record ? `${described.record.length} features: ${described.record.map((feature) => feature.unit ? `${feature.name} (${feature.unit})` : feature.name).join(", ")}` : "not looked at";
  const lines = [line("Intended use", described.intended_use), line("Tasks", tasks), line("Image", image), line("Record", record), line("Pipeline", described.pipeline), line("Version", described.model.version), line("Model's SHA-256", described.model.sha256), line("Cohort's SHA-256", described.cohort), line("Trained by commit", described.commit)];
  at("card").replaceChildren(element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "The model, as it describes itself" }, element("table", {}, element("tbody", {}, ...lines))));
}

async function status() {
  const [index, statistics] = await Promise.all([ask("/v2/repository/index", { method: "POST" }), ask("/v2/models/stats")]);
  const count = ({ name, version }) => statistics.model_stats.find((of) => of.name === name && of.version === version);
  const rows = index.map((listed) => {
    const of = count(listed);
    return element("tr", {}, cell(listed.name), cell(listed.version), cell(listed.state), cell(of ? String(of.inference_stats.success.count) : "–"), cell(listed.reason || ""));
  });
  at("index").tBodies[0].replaceChildren(...rows);
  return index;
}

async function start() {
  try {
    const index = await status();
    const names = [...new Set(index.filter(({ state }) => state === "READY").map(({ name }) => name))];
    at("model").replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    await describe();
  } catch (error) {
    say(error.message, true);
  }
}

at("form").addEventListener("submit", predict);
at("form").addEventListener("reset", () => {
  chosen.length = 0;
  choose([]);
  at("results").hidden = true;
  setTimeout(describe);
});
at("files").addEventListener("change", () => {
  choose(at("files").files);
  at("files").value = "";
});
at("model").addEventListener("change", describe);
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  choose(event.dataTransfer.files);
});
start();
