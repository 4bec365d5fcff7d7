"use strict";
// Shows the questions of #data (gzip + base64 JSON, made by explorer.py) a page at a time; tooltips, table sorting, theme.
// Everything from the data is set as text, never as HTML. No request ever leaves the page.
const PAGE = 25, make = (tag, props = {}, ...children) => { const e = Object.assign(document.createElement(tag), props); e.append(...children); return e; };
const byId = (id) => document.getElementById(id);

byId("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = getComputedStyle(root).colorScheme === "dark" || (getComputedStyle(root).colorScheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.style.colorScheme = dark ? "light" : "dark";
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
addEventListener("beforeprint", () => document.querySelectorAll("#subjects details").forEach((d) => { d.open = true; }));

for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th"), place = head.cellIndex, up = head.getAttribute("aria-sort") === "descending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => { const cell = row.cells[place]; return cell.dataset.sort === undefined ? cell.textContent : Number(cell.dataset.sort); };
    const rows = [...table.tBodies[0].rows].sort((a, b) => { const x = value(a), y = value(b); return typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)); });
    table.tBodies[0].append(...(up ? rows : rows.reverse()));
  });
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
  return JSON.parse(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text());
}

function explorer(data) {
  const { runs, texts, words, letters } = data, n = data.row.length, overlap = new Set(data.overlap), app = byId("app");
  const identity = (i) => data.ids?.[i] ?? `${data.subjects[data.subject[i]].id}/${data.split}/${data.row[i]}`;
  const letter = (run, i) => runs[run].letters[i], right = (run, i) => letter(run, i) === data.key[i], asked = (run, i) => letter(run, i) !== " ";
  const probability = (run, option, i) => { const code = runs[run].probabilities?.[option]?.charCodeAt(i); return code === undefined || code < 40 ? null : (code - 40) / 80; };
  const confidence = (run, i) => { const at = letters.indexOf(letter(run, i)); return at < 0 ? -1 : probability(run, at, i) ?? -1; };
  let lower = null; // texts in lower case, made at the first search
  const haystack = (i) => { lower ??= []; return lower[i] ??= (identity(i) + " " + data.subjects[data.subject[i]].name + (texts ? " " + [texts.question[i], ...[...letters].map((l) => texts[l]?.[i] ?? "")].join(" ") : "")).toLowerCase(); };
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
  runB.value = String(Math.min(1, runs.length - 1));
  const count = make("span", { id: "count" }), back = make("button", { type: "button", id: "back", textContent: "←", ariaLabel: words.back }), next = make("button", { type: "button", id: "next", textContent: "→", ariaLabel: words.next });
  const list = make("div", { className: "questions", id: "questions" }), controls = make("div", { className: "controls" }, search, subject, outcome, ...(single ? [] : [runA, runB]), ...(runs.some((r) => r.probabilities) ? [order] : []));
  app.replaceChildren(controls, make("div", { className: "status" }, count, back, next), list);

  let found = [], page = 0;
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
  function show() {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    count.textContent = words.count.replace("{found}", found.length.toLocaleString()).replace("{all}", n.toLocaleString()).replace("{page}", page + 1).replace("{pages}", pages);
    back.disabled = page === 0; next.disabled = page >= pages - 1;
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(row));
    if (!found.length) list.append(make("p", { className: "empty", textContent: words.nothing }));
  }
  const pill = (run, i) => { const l = letter(run, i); return make("span", { className: "pill " + (l === " " ? "" : right(run, i) ? "right" : "wrong"), textContent: l === " " ? "·" : l === "-" ? "?" : l, title: runs[run].name }); };
  function row(i) {
    const box = make("div", { className: "q" }), stem = texts?.question[i] ?? "", shown = runs.length > 12 ? [Number(runA.value), Number(runB.value)] : runs.map((_, r) => r);
    const button = make("button", { type: "button", ariaExpanded: "false" }, make("span", { className: "id", textContent: `${data.subjects[data.subject[i]].name} ${data.row[i]}` }), make("span", { className: "stem", textContent: stem }),
      make("span", { className: "pills" }, make("span", { className: "pill key", textContent: data.key[i], title: words.key }), ...shown.map((r) => pill(r, i))));
    button.addEventListener("click", () => { const open = box.lastChild !== button; if (open) box.lastChild.remove(); else box.append(detail(i)); button.ariaExpanded = String(!open); });
    box.append(button);
    return box;
  }
  // the letters that the question has, as far as texts or probabilities tell
  const own = (i) => [...letters].filter((l, at) => (texts && texts.question[i] !== null) ? texts[l]?.[i] != null : runs.some((_, r) => probability(r, at, i) !== null) || at < 4);
  function detail(i) {
    const box = make("div", { className: "detail" });
    box.append(make("p", { className: "note full-id", textContent: identity(i) + (overlap.has(i) ? " · " + words.overlap : "") + (texts?.human_accuracy[i] != null ? ` · ${words.human} ${Math.round(100 * texts.human_accuracy[i])} %` : "") }));
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
    const head = make("thead", {}, make("tr", {}, make("th", { textContent: words.run }), make("th", { textContent: words.prediction }), ...(probs ? own(i).map((l) => make("th", { textContent: "P(" + l + ")" })) : [])));
    box.append(make("div", { className: "scroll" }, make("table", { className: "probs" }, head, body)));
    for (const run of runs) for (const text of run.texts?.[i] ?? []) box.append(make("div", {}, make("h4", { textContent: run.name }), make("pre", { className: "said-by", textContent: text })));
    return box;
  }
  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 120); });
  for (const control of [subject, outcome, order, runA, runB]) control.addEventListener("change", filter);
  back.addEventListener("click", () => { page--; show(); }); next.addEventListener("click", () => { page++; show(); });
  filter();
}

if (byId("data")) unpack(byId("data").textContent).then(explorer).catch((error) => { byId("app").textContent = String(error); console.error(error); });
document.documentElement.dataset.ready = "yes";
