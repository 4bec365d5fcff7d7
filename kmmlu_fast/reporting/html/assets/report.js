// Shows the questions of #data (gzip + base64 JSON, made by explorer.py) a page at a time; tooltips, table sorting, theme.
// Everything from the data is set as text, never as HTML. No request ever leaves the page.
const PAGE = 25, make = (tag, props = {}, ...children) => { const e = Object.assign(document.createElement(tag), props); e.append(...children); return e; };
const byId = (id) => document.getElementById(id);

byId("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = getComputedStyle(root).colorScheme === "dark" || (getComputedStyle(root).colorScheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.style.colorScheme = dark ? "light" : "dark";
  VIEW.set({ theme: root.style.colorScheme });
});
byId("lang").addEventListener("click", (event) => { VIEW.set({ lang: event.currentTarget.lang }); location.reload(); });
// Links within the page keep what was chosen.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='#']");
  if (!link) return;
  event.preventDefault();
  const place = decodeURIComponent(link.getAttribute("href").slice(1)), target = byId(place);
  VIEW.set({ place });
  if (target) target.scrollIntoView(); else reveal(place); // a section, or a question
  if (link.className === "skip" && target) { target.tabIndex = -1; target.focus(); }
});

const tip = byId("tip");
document.addEventListener("pointermove", (event) => {
  const mark = event.target.closest?.(".chart [role=graphics-symbol][aria-label]:not([aria-roledescription=axis])");
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.getAttribute("aria-label");
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
});
// On paper nothing can be unfolded: all of it is open, and closed again afterwards.
let unfolded = [];
addEventListener("beforeprint", () => { unfolded = [...document.querySelectorAll("details:not(.numbers):not([open])")]; unfolded.forEach((d) => { d.open = true; }); });
addEventListener("afterprint", () => { unfolded.forEach((d) => { d.open = false; }); unfolded = []; });

for (const table of document.querySelectorAll("table.sortable")) {
  const sort = (head, up) => {
    const place = Number(head.dataset.col ?? head.cellIndex);
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const number = (text) => { const found = Number(text.replaceAll(",", "").replace("−", "-").replace("*", "")); return text.trim() && !Number.isNaN(found) ? found : text; };
    const value = (row) => { const cell = row.cells[place]; return cell.dataset.sort === undefined ? number(cell.textContent) : Number(cell.dataset.sort); };
    const rows = [...table.tBodies[0].rows].sort((a, b) => { const x = value(a), y = value(b); return typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)); });
    table.tBodies[0].append(...(up ? rows : rows.reverse()));
  };
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th"), up = head.getAttribute("aria-sort") === "descending";
    sort(head, up);
    VIEW.set({ sort: `${table.id}.${head.dataset.col ?? head.cellIndex}.${up ? "up" : "down"}` });
  });
  const [id, column, way] = VIEW.get("sort").split("."), wanted = id === table.id && [...table.tHead.rows[0].cells].find((head) => (head.dataset.col ?? String(head.cellIndex)) === column);
  if (wanted) sort(wanted, way === "up");
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
  return JSON.parse(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text());
}

function explorer(data, picked) {
  const { runs, texts, words, letters } = data, n = data.row.length, overlap = new Set(data.overlap), app = byId("app");
  const identity = (i) => data.ids?.[i] ?? `${data.subjects[data.subject[i]].id}/${data.split}/${data.row[i]}`;
  const letter = (run, i) => runs[run].letters[i], right = (run, i) => letter(run, i) === data.key[i], asked = (run, i) => letter(run, i) !== " ";
  const probability = (run, option, i) => { const code = runs[run].probabilities?.[option]?.charCodeAt(i); return code === undefined || code < 40 ? null : (code - 40) / 80; };
  const confidence = (run, i) => { const at = letters.indexOf(letter(run, i)); return at < 0 ? -1 : probability(run, at, i) ?? -1; };
  let lower = null; // texts in lower case, made at the first search
  const haystack = (i) => { lower ??= []; return lower[i] ??= (identity(i) + " " + data.subjects[data.subject[i]].search + (texts ? " " + [texts.question[i], ...[...letters].map((l) => texts[l]?.[i] ?? "")].join(" ") : "")).toLowerCase(); };
  const outcomes = { all: () => true, gained: (i, a, b) => !right(a, i) && right(b, i), lost: (i, a, b) => right(a, i) && !right(b, i), differ: (i, a, b) => letter(a, i) !== letter(b, i), wrong_a: (i, a) => !right(a, i), wrong_b: (i, a, b) => !right(b, i),
    all_wrong: (i) => runs.every((_, r) => !right(r, i)), all_right: (i) => runs.every((_, r) => right(r, i)), unparsed: (i, a, b) => letter(a, i) === "-" || letter(b, i) === "-", forced: (i, a, b) => runs[a].forced_set.has(i) || runs[b].forced_set.has(i), overlap: (i) => overlap.has(i) };
  for (const run of runs) run.forced_set = new Set(run.forced ?? []);
  const single = runs.length === 1, names = Object.keys(outcomes).filter((k) => !(single && ["gained", "lost", "differ", "wrong_b", "all_wrong", "all_right"].includes(k)) && !(k === "overlap" && !overlap.size) && !(k === "forced" && !runs.some((r) => r.forced)));

  const select = (id, options, label) => make("select", { id, ariaLabel: label }, ...options.map(([value, text]) => make("option", { value, textContent: text })));
  const search = make("input", { id: "search", type: "search", placeholder: words.search, ariaLabel: words.search });
  const groups = [...new Set(data.subjects.map((s) => s.group))];
  const subject = select("subject", [["", words.all_subjects], ...groups.map((g) => ["g:" + g, g]), ...data.subjects.map((s, i) => [String(i), s.name])], words.subject);
  const outcome = select("outcome", names.map((k) => [k, words[k]]), words.outcome), order = select("order", [["file", words.order_file], ["confident", words.order_confident], ["unsure", words.order_unsure]], words.order);
  const runOptions = runs.map((r, i) => [String(i), r.name]), runA = select("run-a", runOptions, words.first), runB = select("run-b", runOptions, words.second);
  const restore = (control, value) => { if (value && [...(control.options ?? [])].some((option) => option.value === value)) control.value = value; };
  search.value = VIEW.get("q"); restore(subject, fromName(VIEW.get("subject"))); restore(outcome, VIEW.get("outcome")); restore(order, VIEW.get("order"));
  const follow = () => { [runA.value, runB.value] = picked.chosen().map(String); };
  follow();
  function fromName(name) { const at = data.subjects.findIndex((s) => s.id === name); return name.startsWith("g:") ? name : at < 0 ? "" : String(at); }
  const count = make("span", { id: "count", role: "status" }), back = make("button", { type: "button", id: "back", textContent: "←", ariaLabel: words.back }), next = make("button", { type: "button", id: "next", textContent: "→", ariaLabel: words.next });
  const list = make("div", { className: "questions", id: "questions" }), controls = make("div", { className: "controls" }, search, subject, outcome, ...(single ? [] : [runA, runB]), ...(runs.some((r) => r.probabilities) ? [order] : []));
  const turn = (by) => { page += by; opened.clear(); show(); keep(); }, jump = make("input", { id: "page", type: "number", min: "1", ariaLabel: words.jump, title: words.jump });
  const below = [make("button", { type: "button", textContent: "←", ariaLabel: words.back }), make("button", { type: "button", textContent: "→", ariaLabel: words.next })];
  app.replaceChildren(controls, make("div", { className: "status" }, count, back, jump, next), list, make("div", { className: "status below" }, make("span", { textContent: words.keys }), ...below));

  let found = [], page = 0;
  const opened = new Set();
  const keep = () => VIEW.set({ q: search.value.trim(), subject: subject.value === "" || subject.value.startsWith("g:") ? subject.value : data.subjects[Number(subject.value)].id, outcome: outcome.value === "all" ? "" : outcome.value, order: order.value === "file" ? "" : order.value,
    page: page ? String(page + 1) : "", open: [...opened].map(identity).join(",") });
  function filter() {
    const words_ = search.value.toLowerCase().split(/\s+/).filter(Boolean), a = Number(runA.value), b = Number(runB.value), test = outcomes[outcome.value], wanted = subject.value;
    found = [];
    for (let i = 0; i < n; i++) {
      if (wanted.startsWith("g:") ? data.subjects[data.subject[i]].group !== wanted.slice(2) : wanted && data.subject[i] !== Number(wanted)) continue;
      if (outcome.value !== "all" && !(asked(a, i) && asked(b, i) && test(i, a, b))) continue;
      if (words_.length && !words_.every((w) => haystack(i).includes(w))) continue;
      found.push(i);
    }
    if (order.value !== "file") { const sign = order.value === "confident" ? -1 : 1, at = single ? a : b, rank = new Map(found.map((i) => [i, confidence(at, i)])); found.sort((x, y) => sign * (rank.get(x) - rank.get(y)) || x - y); }
    page = 0;
    show();
  }
  const refilter = () => { opened.clear(); filter(); VIEW.set({ place: VIEW.isQuestion(VIEW.get("place")) ? "" : VIEW.get("place") }); keep(); };
  // A question by its id: where the filters hide it, they are cleared.
  const places = new Map();
  function reveal(id) {
    if (!places.size) for (let i = 0; i < n; i++) places.set(identity(i), i);
    const i = places.get(id);
    if (i === undefined) return false;
    if (!found.includes(i)) { search.value = subject.value = ""; outcome.value = "all"; filter(); }
    page = Math.floor(found.indexOf(i) / PAGE);
    opened.add(i);
    show();
    const button = list.children[found.indexOf(i) % PAGE].firstChild;
    button.scrollIntoView({ block: "center" });
    button.focus({ preventScroll: true });
    return true;
  }
  function show() {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    count.textContent = words.count.replace("{found}", found.length.toLocaleString()).replace("{all}", n.toLocaleString()).replace("{page}", page + 1).replace("{pages}", pages);
    for (const button of [back, below[0]]) button.disabled = page === 0;
    for (const button of [next, below[1]]) button.disabled = page >= pages - 1;
    jump.max = String(pages); jump.value = String(page + 1);
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(row));
    if (!found.length) list.append(make("p", { className: "empty", textContent: words.nothing }));
  }
  const pill = (run, i) => { const l = letter(run, i); return make("span", { className: "pill " + (l === " " ? "" : right(run, i) ? "right" : "wrong"), textContent: l === " " ? "·" : l === "-" ? "?" : l, title: `${runs[run].name}: ${l === " " ? words.not_asked : right(run, i) ? words.right : words.wrong}` }); };
  function row(i) {
    const box = make("div", { className: "q" }), stem = texts?.question[i] ?? "", shown = runs.length > 12 ? [Number(runA.value), Number(runB.value)] : runs.map((_, r) => r);
    const button = make("button", { type: "button", ariaExpanded: "false" }, make("span", { className: "id", textContent: `${data.subjects[data.subject[i]].name} ${data.row[i]}` }), make("span", { className: "stem", textContent: stem }),
      make("span", { className: "pills" }, make("span", { className: "pill key", textContent: data.key[i], title: words.key }), ...shown.map((r) => pill(r, i))));
    button.addEventListener("click", () => { const open = box.lastChild !== button; if (open) { box.lastChild.remove(); opened.delete(i); } else { box.append(detail(i)); opened.add(i); } button.ariaExpanded = String(!open); VIEW.set({ place: open ? "" : identity(i) }); keep(); });
    box.append(button);
    if (opened.has(i)) { box.append(detail(i)); button.ariaExpanded = "true"; }
    return box;
  }
  // the letters that the question has, as far as texts or probabilities tell
  const own = (i) => [...letters].filter((l, at) => (texts && texts.question[i] !== null) ? texts[l]?.[i] != null : runs.some((_, r) => probability(r, at, i) !== null) || at < 4);
  function detail(i) {
    const box = make("div", { className: "detail" });
    box.append(make("p", { className: "note full-id", textContent: identity(i) + (overlap.has(i) ? " · " + words.overlap : "") + (texts?.human_accuracy ? ` · ${words.human} ${texts.human_accuracy[i] == null ? words.unknown : Math.round(100 * texts.human_accuracy[i]) + " %"}` : "") + " " }));
    const copy = make("button", { type: "button", className: "copy", textContent: words.copy });
    copy.addEventListener("click", async () => { try { await navigator.clipboard.writeText(identity(i)); copy.textContent = words.copied; } catch { getSelection().selectAllChildren(copy.parentElement); } });
    box.firstChild.append(copy);
    if (texts && texts.question[i] !== null) {
      box.firstChild.after(make("p", { className: "full", textContent: texts.question[i] }));
      box.append(make("ol", { className: "options" }, ...[...letters].filter((l) => texts[l]?.[i] != null).map((l) => make("li", { className: l === data.key[i] ? "answer" : "" }, make("b", { textContent: l }), make("span", { textContent: texts[l][i] })))));
    }
    const body = make("tbody"), probs = runs.some((r) => r.probabilities);
    runs.forEach((run, r) => {
      if (!asked(r, i)) return;
      const cells = probs ? own(i).map((l, at) => { const p = probability(r, at, i), bar = make("i"); bar.style.setProperty("--p", 100 * (p ?? 0)); return make("td", { className: "p" + (l === data.key[i] ? " hit" : "") }, ...(p === null ? ["–"] : [make("span", { textContent: (100 * p).toFixed(0) + " %" }), bar])); }) : [];
      body.append(make("tr", {}, make("th", { scope: "row", textContent: run.name }), make("td", {}, pill(r, i), run.forced_set.has(i) ? " " + words.forced : ""), ...cells));
    });
    const head = make("thead", {}, make("tr", {}, make("th", { scope: "col", textContent: words.run }), make("th", { scope: "col", textContent: words.prediction }), ...(probs ? own(i).map((l) => make("th", { scope: "col", textContent: "P(" + l + ")" })) : [])));
    box.append(make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: identity(i) }, make("table", { className: "probs" }, head, body)));
    for (const run of runs) for (const text of run.texts?.[i] ?? []) box.append(make("div", {}, make("h3", { className: "h4", textContent: run.name }), make("pre", { className: "said-by", tabIndex: 0, textContent: text })));
    return box;
  }
  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(refilter, 120); });
  for (const control of [subject, outcome, order]) control.addEventListener("change", refilter);
  for (const control of [runA, runB]) control.addEventListener("change", () => picked.choose(Number(runA.value), Number(runB.value)));
  picked.changed(() => { follow(); refilter(); });
  for (const button of [back, below[0]]) button.addEventListener("click", () => turn(-1));
  for (const button of [next, below[1]]) button.addEventListener("click", () => turn(1));
  jump.addEventListener("change", () => { const wanted = Math.round(Number(jump.value)) - 1, last = Math.max(0, Math.ceil(found.length / PAGE) - 1); page = Math.min(Math.max(0, wanted || 0), last); opened.clear(); show(); keep(); });
  const step = (by) => {
    const buttons = [...list.querySelectorAll(".q > button")], at = buttons.indexOf(document.activeElement), to = at < 0 ? (by > 0 ? 0 : buttons.length - 1) : at + by;
    if (buttons[to]) { buttons[to].focus(); return; }
    const [button, first] = by > 0 ? [next, true] : [back, false];
    if (button.disabled) return;
    turn(by);
    const turned = list.querySelectorAll(".q > button");
    turned[first ? 0 : turned.length - 1]?.focus();
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "")) return;
    if (event.key === "/") { event.preventDefault(); search.focus(); search.select(); } else if (event.key === "j") step(1); else if (event.key === "k") step(-1);
  });
  const wantedPage = Number(VIEW.get("page")) - 1, wantedOpen = new Set(VIEW.get("open").split(",").filter(Boolean));
  filter();
  if (wantedPage > 0 && wantedPage * PAGE < found.length) page = wantedPage;
  if (wantedOpen.size) for (const i of found.slice(page * PAGE, (page + 1) * PAGE)) if (wantedOpen.has(identity(i))) opened.add(i);
  show();
  return reveal;
}

let reveal = () => false;
const arrive = () => { const place = VIEW.get("place"); if (place && !reveal(place)) byId(place)?.scrollIntoView(); };
addEventListener("hashchange", () => { // typed, or followed from elsewhere: a bare place keeps what was chosen
  if (location.hash.includes("?")) { location.reload(); return; }
  try { VIEW.set({ place: VIEW.parse(location.hash).place }); } catch { return; }
  arrive();
});
function start(data) {
  const at = data.languages.indexOf(LANG);
  data.subjects = data.subjects.map((subject, i) => ({ ...subject, name: data.names[at][i], group: data.groups[at][i], search: data.names.map((names) => names[i]).join(" ") }));
  data.words = data.words[LANG];
  data.views = data.views?.[LANG];
  data.verdicts = data.verdicts?.[LANG];
  reveal = explorer(data, pairs(data));
  arrive();
}
if (byId("data")) unpack(byId("data").textContent).then(start).catch((error) => { byId("app").textContent = String(error); console.error(error); });
else arrive();
document.documentElement.dataset.ready = "yes";
