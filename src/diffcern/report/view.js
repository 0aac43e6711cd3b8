// The list of images and the page of one: reads the scripts in data/, and the place in the address after the #.
"use strict";
const PAGE = 50; // images of a page of the list
const FIELDS = ["q", "outcome", "entry", "shift", "severity"];
const parts = {}, promises = {}, numbers = new Map(), ids = [], truths = [];
let run, loaded = 0, found = { key: null, list: [] }, current = -1, shown = null;

globalThis.diffcernData = (name, value) => { parts[name] = value; };

function load(name) {
  return promises[name] ??= new Promise((resolve, reject) => {
    const script = document.createElement("script"), advice = "copy the whole folder, or run `diffcern view` again";
    const lost = () => reject(new Error(`data/${name}.js is missing or damaged: ${advice}.`));
    script.src = `data/${name}.js`;
    script.onload = () => (name in parts ? resolve(parts[name]) : lost());
    script.onerror = lost;
    document.head.append(script);
  });
}

const $ = id => document.getElementById(id);
const digits = value => value.toLocaleString("en");
const named = k => (k < 0 ? "unknown" : run.classes[k] ?? `class ${k}`);
const condition = c => run.conditions[c].filter(Boolean).join(" ");
const percent = value => (value === null ? "–" : (100 * value).toFixed(1) + " %");
const short = value => value.toLocaleString("en", { maximumSignificantDigits: 3 });
const amount = value => (value === null ? "–" : value && value < 0.01 ? "<0.01" : short(value));

function el(tag, attributes = {}, ...children) { // text is never read as HTML
  const kind = ["svg", "polyline", "rect", "title"].includes(tag) ? "2000/svg" : "1999/xhtml";
  const node = document.createElementNS(`http://www.w3.org/${kind}`, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// The address: #/?filters of the list, #/image/ID?filters of an image.

function place() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?"), asked = new URLSearchParams(query);
  const filter = Object.fromEntries(FIELDS.map(name => [name, asked.get(name)]).filter(([, value]) => value));
  let id = path.startsWith("image/") ? path.slice(6) : null;
  try { id = id && decodeURIComponent(id); } catch { /* typed by hand */ }
  return { id, filter, page: Math.max(1, parseInt(asked.get("page")) || 1) };
}

function address(id, filter, page = 1) {
  const query = String(new URLSearchParams(id === null && page > 1 ? { ...filter, page } : filter));
  return "#/" + (id === null ? "" : "image/" + encodeURIComponent(id)) + (query && "?" + query);
}

function columns({ entry, shift, severity }) {
  const kept = [];
  run.conditions.forEach(([name, level], c) => run.entries.forEach((other, e) => {
    const fits = (!shift || shift === name) && (!severity || Number(severity) === level);
    if (fits && (!entry || entry === other)) kept.push(c * run.entries.length + e);
  }));
  return kept;
}

function letter(n, column) {
  const width = run.entries.length * run.conditions.length;
  return parts[`index-${Math.floor(n / run.indexed)}`].outcomes[(n % run.indexed) * width + column];
}

function matches(filter) {
  const key = JSON.stringify([filter, loaded]);
  if (found.key === key) return found.list;
  const kept = columns(filter), wanted = filter.outcome && (run.choices[filter.outcome] ?? "");
  const text = (filter.q ?? "").toLowerCase(), list = [];
  const fits = is => (wanted === undefined ? is !== run.missing : wanted.includes(is));
  for (let n = 0; n < loaded; n++) {
    if (text && !ids[n].toLowerCase().includes(text)) continue;
    if (kept.some(column => fits(letter(n, column)))) list.push(n);
  }
  found = { key, list };
  return list;
}

function summed(n, filter) {
  const names = columns(filter).map(column => run.outcomes[letter(n, column)]);
  const counts = Object.values(run.outcomes).map(name => [name, names.filter(other => other === name).length]);
  const said = ([name, count]) => (names.length > 1 ? `${count} ${name}` : name);
  return counts.filter(([, count]) => count).map(said).join(", ");
}

// The list.

function showList({ filter, page }) {
  const list = matches(filter), pages = Math.max(1, Math.ceil(list.length / PAGE));
  const start = (Math.min(page, pages) - 1) * PAGE, stop = Math.min(start + PAGE, list.length);
  for (const field of $("filters").elements) {
    if (field.value !== (filter[field.name] ?? "")) field.value = filter[field.name] ?? "";
  }
  $("rows").replaceChildren(...list.slice(start, stop).map(n => el("tr", {},
    el("th", { scope: "row" }, el("a", { href: address(ids[n], filter) }, ids[n] || "(no id)")),
    ...(run.dense ? [] : [el("td", {}, named(truths[n]))]),
    el("td", {}, summed(n, filter)))));
  const still = loaded < run.images ? `; reading the others (${digits(loaded)} of ${digits(run.images)})` : "";
  const range = list.length ? `${digits(start + 1)}–${digits(stop)} of ` : "";
  $("count").textContent = `${range}${digits(list.length)} image${list.length === 1 ? "" : "s"}${still}`;
  $("before").disabled = start === 0;
  $("after").disabled = stop === list.length;
  $("list").hidden = false;
  $("image").hidden = true;
  document.title = `${run.title} – diffcern view`;
  mark(shown === null ? -1 : list.indexOf(shown) - start);
  shown = null;
}

function mark(row) {
  current = row in $("rows").children ? row : -1;
  [...$("rows").children].forEach((each, i) => each.classList.toggle("current", i === current));
  $("rows").children[current]?.querySelector("a").focus();
}

function turn(by, row = 0) { // to another page of the list, and from a key to a row of it
  const { filter, page } = place(), list = matches(filter), next = Math.min(page, Math.ceil(list.length / PAGE)) + by;
  if (next < 1 || (next - 1) * PAGE >= list.length) return;
  shown = list[(next - 1) * PAGE + row];
  location.hash = address(null, filter, next);
}

// One image.

async function showImage({ id, filter }) {
  const n = numbers.get(id), list = matches(filter), at = list.indexOf(n);
  const back = el("a", { href: address(null, filter, Math.floor(Math.max(at, 0) / PAGE) + 1) }, "To the list");
  if (loaded < run.images || n === undefined) {
    const text = loaded < run.images ? "Reading …" : `This run has no image ${JSON.stringify(id)}.`;
    return present(el("nav", { class: "pager" }, back), el("p", { class: "notice", role: "status" }, text));
  }
  const all = (await load(`details-${Math.floor(n / run.detailed)}`))[n % run.detailed];
  if (place().id !== id) return;
  const link = (text, m, rel) => (m === undefined ? [] : [el("a", { href: address(ids[m], filter), rel }, text)]);
  const steps = at < 0 ? [] : [...link("Previous", list[at - 1], "prev"), ...link("Next", list[at + 1], "next"),
    el("span", {}, `${digits(at + 1)} of ${digits(list.length)}`)];
  const heading = el("h2", { tabindex: "-1" }, id || "(no id)"), { entry, q, outcome } = filter;
  const wanted = new Set(columns({ ...filter, entry: "" }).map(column => Math.floor(column / run.entries.length)));
  const notes = [];
  if (!run.dense) notes.push(el("p", {}, "It is ", el("strong", {}, named(truths[n])), "."));
  if (!all.shown && !all.clean) notes.push(el("p", { class: "lead" }, "This view has no picture of this image."));
  if (wanted.size < run.conditions.length) {
    const whole = Object.fromEntries(Object.entries({ q, outcome, entry }).filter(([, value]) => value));
    notes.push(el("p", { class: "lead" }, `${wanted.size} of ${run.conditions.length} conditions, by the filter: `,
      el("a", { href: address(id, whole) }, "show all"), "."));
  }
  if (all.maps && run.colours.length) {
    notes.push(el("ul", { class: "key" }, ...run.colours.map(([name, fill]) => el("li", {},
      el("svg", { "aria-hidden": "true" }, el("rect", { width: "100%", height: "100%", fill })), name))));
  }
  const sections = run.conditions.flatMap((_, c) => (wanted.has(c) ? section(n, c, all) : []));
  present(el("nav", { class: "pager", "aria-label": "Images" }, back, ...steps), heading, ...notes, ...sections);
  shown = n;
  document.title = `${id} – ${run.title}`;
  heading.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function present(...nodes) {
  $("image").replaceChildren(...nodes);
  $("image").hidden = false;
  $("list").hidden = true;
}

function figure(file, caption, alt) {
  const image = el("img", { src: "pictures/" + file, alt, loading: "lazy" });
  image.onload = () => image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) <= 64);
  return el("figure", {}, image, el("figcaption", {}, caption));
}

function section(n, c, all) { // what every entry answered under one shift
  const records = all.records.filter(record => record[0] === c);
  const skipped = (all.skipped ?? []).filter(skip => skip[0] === c);
  if (!records.length && !skipped.length) return [];
  const title = condition(c), own = all.shown?.[c], scale = all.scales ? `, ${all.scales}` : "", pictures = [];
  if (own) pictures.push(figure(own, title, `The image under ${title}`));
  const clean = all.clean ?? all.shown?.[run.conditions.findIndex(([shift]) => shift === "clean")];
  if (own && clean && clean !== own) pictures.push(figure(clean, "clean", "The clean image"));
  if (own && all.truths) pictures.push(figure(all.truths, `truth${scale}`, "The truth"));
  const first = run.dense ? [run.metric] : ["Answer", "Probability"];
  const titles = ["Entry", ...first, "Outcome", "Evaluations", "Seconds", "Loss", "Notes"];
  const rows = records.map(([, e, prediction, probability, forward, backward, seconds, trace, notes, value]) => {
    const map = all.maps?.[`${c}-${e}`], name = run.entries[e];
    if (map) pictures.push(figure(map, `${name} ${percent(value)}`, `Answered by ${name}`));
    const outcome = run.outcomes[letter(n, c * run.entries.length + e)] ?? "";
    const answer = run.dense ? [percent(value)] : [named(prediction), percent(probability)];
    const cost = amount(forward) + (backward ? ` (${amount(backward)} differentiated)` : "");
    return el("tr", {}, el("th", { scope: "row" }, name), ...answer.map(text => el("td", {}, text)),
      el("td", { class: "outcome " + outcome.split(" ")[0] }, outcome), el("td", {}, cost),
      el("td", {}, amount(seconds)), el("td", {}, ...curve(trace)), el("td", { class: "notes" }, notes.join(" ")));
  });
  rows.push(...skipped.map(([, e, reason]) => el("tr", {}, el("th", { scope: "row" }, run.entries[e]),
    el("td", { colspan: titles.length - 1 }, `Skipped: ${reason}`))));
  const head = el("thead", {}, el("tr", {}, ...titles.map(text => el("th", { scope: "col" }, text))));
  const table = el("table", {}, head, el("tbody", {}, ...rows));
  return [el("h3", {}, title), ...(pictures.length ? [el("div", { class: "pictures" }, ...pictures)] : []),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Answers under ${title}` }, table)];
}

function curve(trace) {
  if (trace.length < 2) return trace.map(short);
  const low = Math.min(...trace), range = Math.max(...trace) - low || 1, step = 118 / (trace.length - 1);
  const points = trace.map((loss, i) => [1 + i * step, 30 - (28 * (loss - low)) / range].map(at => at.toFixed(1)));
  const words = `loss from ${short(trace[0])} to ${short(trace.at(-1))}`;
  return [el("svg", { class: "trace", viewBox: "0 0 120 32", role: "img", "aria-label": words }, el("title", {}, words),
    el("polyline", { points: points.join(" "), fill: "none", stroke: "currentColor", "stroke-width": "1.5" }))];
}

// What happens when.

const fail = error => present(el("p", { class: "notice", role: "alert" }, error.message));
const show = () => (place().id === null ? showList(place()) : showImage(place()).catch(fail));

function keys(event) {
  const field = event.target.closest("input, select"), listed = !$("list").hidden;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") return field ? field.blur() : $("image").querySelector("nav a")?.click();
  const step = { j: 1, k: -1 }[event.key];
  if (field || !(step || event.key === "/")) return;
  if (!listed) return step && $("image").querySelector(`a[rel=${step > 0 ? "next" : "prev"}]`)?.click();
  event.preventDefault();
  if (event.key === "/") return $("filters").elements.q.focus();
  if (current + step in $("rows").children) return mark(current + step);
  if (current >= 0) turn(step, step > 0 ? 0 : PAGE - 1);
}

async function start() {
  run = await load("run");
  $("filters").addEventListener("submit", event => event.preventDefault());
  $("filters").addEventListener("input", () => location.replace(address(null, Object.fromEntries(
    [...$("filters").elements].map(field => [field.name, field.value]).filter(([, value]) => value)))));
  $("before").addEventListener("click", () => turn(-1));
  $("after").addEventListener("click", () => turn(1));
  addEventListener("hashchange", show);
  addEventListener("keydown", keys);
  for (let piece = 0; loaded < run.images; piece++) {
    const index = await load(`index-${piece}`);
    for (const id of index.ids) numbers.set(id, ids.push(id) - 1);
    truths.push(...index.truths);
    loaded = ids.length;
    show();
  }
}

start().catch(fail);
