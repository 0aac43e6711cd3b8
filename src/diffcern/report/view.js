// The list of images and the page of one: reads the scripts in data/, and the place in the address after the #.
"use strict";

const PAGE = 50; // images of a page of the list
const FIELDS = ["q", "outcome", "entry", "shift", "severity"];
const parts = {}, promises = {}, numbers = new Map(), ids = [], truths = [];
let run, loaded = 0, found = { key: null, list: [] }, current = -1, shown = null;
const $ = id => document.getElementById(id);

globalThis.diffcernData = (name, value) => { parts[name] = value; };

function load(name) {
  return promises[name] ??= new Promise((resolve, reject) => {
    const script = document.createElement("script"), lost = () => reject(new Error(
      `data/${name}.js is missing or damaged: copy the whole folder, or run \`diffcern view\` again.`));
    script.src = `data/${name}.js`;
    script.onload = () => (name in parts ? resolve(parts[name]) : lost());
    script.onerror = lost;
    document.head.append(script);
  });
}

function el(tag, attributes = {}, ...children) {
  const svg = tag === "svg" || tag === "polyline" || tag === "rect" || tag === "title";
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.map(child => (child instanceof Node ? child : String(child))));
  return node;
}

// The address: #/?filters of the list, #/image/ID?filters of an image.

function place() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const asked = new URLSearchParams(query), filter = {};
  for (const name of FIELDS) if (asked.get(name)) filter[name] = asked.get(name);
  let id = null;
  try { if (path.startsWith("image/")) id = decodeURIComponent(path.slice(6)); } catch { id = path.slice(6); }
  return { id, filter, page: Math.max(1, parseInt(asked.get("page")) || 1) };
}

function address(id, filter, page) {
  const query = new URLSearchParams(filter);
  if (id === null && page > 1) query.set("page", page);
  const text = query.toString();
  return "#/" + (id === null ? "" : "image/" + encodeURIComponent(id)) + (text && "?" + text);
}

// Which images a filter leaves.

function columns(filter) {
  const kept = [];
  run.conditions.forEach(([shift, severity], c) => run.entries.forEach((entry, e) => {
    const fits = (!filter.shift || filter.shift === shift) && (!filter.entry || filter.entry === entry);
    if (fits && (!filter.severity || Number(filter.severity) === severity)) kept.push(c * run.entries.length + e);
  }));
  return kept;
}

const letter = (n, column) => parts[`index-${Math.floor(n / run.indexed)}`].outcomes[
  (n % run.indexed) * run.entries.length * run.conditions.length + column];

function matches(filter) {
  const key = JSON.stringify([filter, loaded]);
  if (found.key === key) return found.list;
  const kept = columns(filter), wanted = filter.outcome && (run.choices[filter.outcome] ?? "");
  const text = (filter.q ?? "").toLowerCase(), list = [];
  for (let n = 0; n < ids.length; n++) {
    if (text && !ids[n].toLowerCase().includes(text)) continue;
    const fits = column => (wanted === undefined ? letter(n, column) !== run.missing : wanted.includes(letter(n, column)));
    if (kept.some(fits)) list.push(n);
  }
  found = { key, list };
  return list;
}

function summed(n, filter) {
  const counts = {}, kept = columns(filter);
  for (const column of kept) {
    const name = run.outcomes[letter(n, column)];
    if (name) counts[name] = (counts[name] ?? 0) + 1;
  }
  return Object.entries(counts).map(([name, count]) => (kept.length > 1 ? `${count} ${name}` : name)).join(", ");
}

const named = k => (k < 0 ? "unknown" : run.classes[k] ?? `class ${k}`);
const condition = c => run.conditions[c][0] + (run.conditions[c][1] ? ` ${run.conditions[c][1]}` : "");
const percent = value => (value === null ? "–" : (100 * value).toFixed(1) + " %");
const amount = value => (value === null ? "–" : value.toLocaleString("en", { maximumSignificantDigits: 3 }));

// The list.

function showList({ filter, page }) {
  const list = matches(filter), pages = Math.max(1, Math.ceil(list.length / PAGE)), start = (Math.min(page, pages) - 1) * PAGE;
  for (const name of FIELDS) {
    const field = $("filters").elements[name];
    if (field && field.value !== (filter[name] ?? "")) field.value = filter[name] ?? "";
  }
  const rows = list.slice(start, start + PAGE).map(n => el("tr", {},
    el("th", { scope: "row" }, el("a", { href: address(ids[n], filter) }, ids[n] || "(no id)")),
    ...(run.dense ? [] : [el("td", {}, named(truths[n]))]), el("td", {}, summed(n, filter))));
  $("rows").replaceChildren(...rows);
  const still = loaded < run.images ? `; reading the others (${loaded.toLocaleString("en")} of ${run.images.toLocaleString("en")})` : "";
  const range = list.length ? `${(start + 1).toLocaleString("en")}–${(start + rows.length).toLocaleString("en")} of ` : "";
  $("count").textContent = `${range}${list.length.toLocaleString("en")} image${list.length === 1 ? "" : "s"}${still}`;
  $("before").disabled = start === 0;
  $("after").disabled = start + PAGE >= list.length;
  $("list").hidden = false;
  $("image").hidden = true;
  document.title = `${run.title} – diffcern view`;
  mark(list.indexOf(shown) - start, shown !== null);
  shown = null;
}

function mark(row, focus = true) {
  const rows = [...$("rows").children];
  current = row >= 0 && row < rows.length ? row : -1;
  rows.forEach((each, i) => each.classList.toggle("current", i === current));
  if (current >= 0 && focus) rows[current].querySelector("a").focus();
}

function turn(by, row = -1) {
  const { filter, page } = place(), pages = Math.max(1, Math.ceil(matches(filter).length / PAGE));
  const next = Math.min(page, pages) + by;
  if (next < 1 || next > pages) return;
  const list = matches(filter), start = (next - 1) * PAGE;
  if (row >= 0) shown = list[Math.min(start + row, list.length - 1)];
  location.hash = address(null, filter, next);
}

// One image.

async function showImage({ id, filter }) {
  const n = numbers.get(id);
  if (n === undefined) {
    const text = loaded < run.images ? "Reading …" : `This run has no image ${JSON.stringify(id)}.`;
    return present(el("p", { class: "notice", role: "status" }, text), el("p", {}, el("a", { href: address(null, filter) }, "To the list")));
  }
  const piece = await load(`details-${Math.floor(n / run.detailed)}`), all = piece[n % run.detailed];
  if (place().id !== id) return;
  const list = matches(filter), at = list.indexOf(n), wanted = new Set(columns({ ...filter, entry: undefined }).map(k => Math.floor(k / run.entries.length)));
  const link = (text, m, rel) => (m === undefined ? [] : [el("a", { href: address(ids[m], filter), rel }, text)]);
  const heading = el("h2", { tabindex: "-1" }, id || "(no id)");
  const truth = run.dense ? [] : [el("p", {}, "It is ", el("strong", {}, named(truths[n])), ".")];
  const hidden = run.conditions.length - wanted.size;
  const parted = hidden ? [el("p", { class: "lead" }, `${hidden} other condition${hidden === 1 ? " is" : "s are"} left out by the filter: `,
    el("a", { href: address(id, { ...filter, shift: "", severity: "" }) }, "show all"), ".")] : [];
  const sections = run.conditions.map((_, c) => c).filter(c => wanted.has(c)).flatMap(c => section(n, c, all));
  const colours = all.maps && run.colours.length ? [el("ul", { class: "key" }, ...run.colours.map(([name, fill]) =>
    el("li", {}, el("svg", { "aria-hidden": "true" }, el("rect", { width: "100%", height: "100%", fill })), name)))] : [];
  const pictured = all.shown || all.clean ? [] : [el("p", { class: "lead" }, "There is no picture of this image in this view.")];
  shown = n;
  present(el("nav", { class: "pager", "aria-label": "Images" }, el("a", { href: address(null, filter, Math.floor(Math.max(at, 0) / PAGE) + 1) }, "To the list"),
    ...link("Previous", list[at - 1], "prev"), ...(at < 0 ? [] : link("Next", list[at + 1], "next")),
    el("span", {}, at < 0 ? "" : `${(at + 1).toLocaleString("en")} of ${list.length.toLocaleString("en")}`)), heading, ...truth, ...pictured, ...parted, ...colours, ...sections);
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
  image.addEventListener("load", () => image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) <= 64));
  return el("figure", {}, image, el("figcaption", {}, caption));
}

function section(n, c, all) {
  const records = all.records.filter(record => record[0] === c).sort((a, b) => a[1] - b[1]);
  const skipped = (all.skipped ?? []).filter(skip => skip[0] === c);
  if (!records.length && !skipped.length) return [];
  const own = all.shown?.[c], clean = all.clean ?? all.shown?.[run.conditions.findIndex(([shift]) => shift === "clean")];
  const pictures = [...(own ? [figure(own, condition(c), `The image under ${condition(c)}`)] : []),
    ...(own && clean && clean !== own ? [figure(clean, "clean", "The clean image")] : []),
    ...(own && all.truths ? [figure(all.truths, "truth" + (all.scales ? `, ${all.scales}` : ""), "The truth")] : [])];
  for (const [, e, , , , , , , , value] of records) {
    const file = all.maps?.[`${c}-${e}`];
    if (file) pictures.push(figure(file, `${run.entries[e]} ${percent(value)}`, `Answered by ${run.entries[e]}`));
  }
  const titles = run.dense ? ["Entry", run.metric, "Outcome"] : ["Entry", "Answer", "Probability", "Outcome"];
  const head = [...titles, "Evaluations", "Seconds", "Loss", "Notes"].map(title => el("th", { scope: "col" }, title));
  const rows = records.map(([, e, prediction, probability, forward, backward, seconds, trace, notes, value]) => {
    const outcome = run.outcomes[letter(n, c * run.entries.length + e)] ?? "";
    const answer = run.dense ? [percent(value)] : [named(prediction), percent(probability)];
    return el("tr", {}, el("th", { scope: "row" }, run.entries[e]), ...answer.map(text => el("td", {}, text)),
      el("td", { class: "outcome " + outcome.split(" ")[0] }, outcome),
      el("td", {}, amount(forward) + (backward ? `, ${amount(backward)} of them differentiated` : "")),
      el("td", {}, amount(seconds)), el("td", {}, ...curve(trace)), el("td", { class: "notes" }, notes.join(" ")));
  });
  rows.push(...skipped.map(([, e, reason]) => el("tr", {}, el("th", { scope: "row" }, run.entries[e]),
    el("td", { colspan: head.length - 1 }, `Skipped: ${reason}`))));
  return [el("h3", {}, condition(c)), ...(pictures.length ? [el("div", { class: "pictures" }, ...pictures)] : []),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Answers under ${condition(c)}` },
      el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)))];
}

function curve(trace) {
  if (trace.length < 2) return trace.map(amount);
  const low = Math.min(...trace), range = Math.max(...trace) - low || 1;
  const points = trace.map((loss, i) => `${(118 * i / (trace.length - 1) + 1).toFixed(1)},${(30 - 28 * (loss - low) / range).toFixed(1)}`);
  const words = `loss from ${amount(trace[0])} to ${amount(trace.at(-1))}`;
  return [el("svg", { class: "trace", viewBox: "0 0 120 32", role: "img", "aria-label": words }, el("title", {}, words),
    el("polyline", { points: points.join(" "), fill: "none", stroke: "currentColor", "stroke-width": "1.5" }))];
}

// What happens when.

const show = () => (place().id === null ? showList(place()) : showImage(place()).catch(fail));

function fail(error) {
  present(el("p", { class: "notice", role: "alert" }, error.message));
}

function keys(event) {
  const field = event.target.closest("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || !run) return;
  if (event.key === "Escape") return field ? field.blur() : $("image").querySelector("nav a, p a")?.click();
  if (field) return;
  if (event.key === "/" && !$("list").hidden) { event.preventDefault(); return $("filters").elements.q.focus(); }
  const step = { j: 1, k: -1 }[event.key];
  if (!$("list").hidden && step) {
    const next = current + step;
    if (next >= $("rows").children.length) return turn(1, 0);
    if (next < 0 && current === 0) return turn(-1, PAGE - 1);
    return mark(Math.max(next, 0));
  }
  if (!$("list").hidden && event.key === "Enter" && event.target === document.body) return $("rows").children[current]?.querySelector("a").click();
  if (step) $("image").querySelector(step > 0 ? "a[rel=next]" : "a[rel=prev]")?.click();
}

function refilter() {
  const filter = Object.fromEntries(FIELDS.map(name => [name, $("filters").elements[name]?.value]).filter(([, value]) => value));
  location.replace(address(null, filter));
}

async function start() {
  run = await load("run");
  $("filters").addEventListener("input", refilter);
  $("filters").addEventListener("submit", event => event.preventDefault());
  $("before").addEventListener("click", () => turn(-1));
  $("after").addEventListener("click", () => turn(1));
  addEventListener("hashchange", show);
  addEventListener("keydown", keys);
  for (let piece = 0; piece * run.indexed < run.images; piece++) {
    const index = await load(`index-${piece}`);
    for (const id of index.ids) numbers.set(id, ids.push(id) - 1);
    truths.push(...index.truths);
    loaded = ids.length;
    if (place().id === null || $("image").hidden || shown === null) show();
  }
}

start().catch(fail);
