"use strict";
// Any two runs, chosen in the page: the verdict, the tiles, the table and the chart of subjects, the differences in the leaderboard.
// Every verdict comes from Python (data.verdicts): nothing here decides. Pairs with the report's own base come ready (data.views); the
// tables of subjects of the others are computed here.
function pairs(data) {
  const { runs, words } = data, names = runs.map((run) => run.name), board = byId("board"), base = byId("base"), contender = byId("contender");
  const standard = [data.pair?.[0] ?? 0, data.pair?.[1] ?? Math.min(1, runs.length - 1)];
  const place = (name, otherwise) => { const at = names.indexOf(VIEW.get(name)); return at < 0 ? otherwise : at; };
  let chosen = [place("base", standard[0]), place("run", standard[1])];
  if (chosen[0] === chosen[1]) chosen = [...standard];
  const listeners = [];
  const choose = (a, b) => {
    if (a === b) b = chosen[0] === a ? chosen[1] : chosen[0]; // the two change places
    chosen = [a, b];
    VIEW.set({ base: a === standard[0] ? "" : names[a], run: b === standard[1] ? "" : names[b] });
    show();
    listeners.forEach((listener) => listener(a, b));
  };
  const percent = (value, digits = 2) => (100 * value).toFixed(digits);
  const points = (value, digits = 2, unit = true) => ((value >= 0 || Math.abs(value * 100) < 0.5 * 10 ** -digits ? "+" : "−") + Math.abs(100 * value).toFixed(digits)) + (unit ? (LANG === "ko" ? " %p" : " pp") : "");
  const pText = (p) => (p < 0.001 ? "< 0.001" : p.toFixed(3));
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const verdict = (a, b) => data.verdicts?.[a]?.[b] ?? null;

  function computed(a, b) {
    const found = STATS.compare(data, a, b), first = names[a], second = names[b];
    if (!found) return { first, second, value: "–", unit: "", tone: "", eyebrow: "", cautions: [words.no_shared], lines: [], details: [], warnings: [], cards: [] };
    const said = verdict(a, b) ?? { line: "", cautions: [], tone: "", value: points(found.difference, 2, false) };
    const changed = found.subjects.filter((row) => row.holm < STATS.ALPHA), up = changed.filter((row) => row.difference > 0).length;
    const card = (label, value, sub, how = "") => ({ label, value, sub, tone: how, split: null });
    return {
      found, first, second, value: said.value, unit: words.unit_pair, tone: said.tone, warnings: [], details: [],
      eyebrow: fill(words.eyebrow_pair, { n: found.n.toLocaleString(), subjects: found.subjects.length, split: data.split }),
      cautions: said.cautions,
      lines: [said.line, words.in_page],
      cards: [
        card(words.short_micro, points(found.difference), `${percent(found.first)} → ${percent(found.second)}`, said.tone),
        card(words.short_macro, points(found.macro.difference), `${percent(found.macro.first)} → ${percent(found.macro.second)}`),
        card(words.card_changed, (found.b + found.c).toLocaleString(), fill(words.card_changed_sub, { b: found.b.toLocaleString(), c: found.c.toLocaleString() })),
        card(words.card_subjects, String(changed.length), fill(words.card_subjects_sub, { up, down: changed.length - up, total: found.subjects.length })),
      ],
    };
  }

  // What Python made of the report's own pair, kept to be put back.
  const parts = ["eyebrow", "pair", "headline", "cards"].map(byId), changes = byId("chart-changes"), table = byId("by-subject"), note = byId("note-subjects");
  const kept = { parts: parts.map((part) => [...part.childNodes]), tone: byId("summary").className, chart: changes ? [...changes.childNodes] : [], rows: table ? [...table.tBodies[0].rows] : [], note: note?.textContent,
    deltas: board ? [...board.tBodies[0].rows].map((row) => ({ row, delta: [...row.querySelector(".delta").childNodes], tone: row.querySelector(".delta").className, prior: row.querySelector(".prior").textContent })) : [] };

  const folded = (lines) => (lines.length ? [make("details", { className: "more" }, make("summary", { textContent: words.details }), ...lines.map((line) => make("p", { textContent: line })))] : []);
  function tell(view) {
    const [eyebrow, title, headline, cards] = parts, para = (text, className = "") => make("p", { className, textContent: text });
    byId("summary").className = "hero " + view.tone;
    eyebrow.textContent = view.eyebrow;
    title.replaceChildren(make("span", { className: "run first", textContent: view.first }), " ", make("span", { className: "arrow", textContent: "→" }), " ", make("span", { className: "run second", textContent: view.second }));
    headline.replaceChildren(make("div", { className: "big" }, make("strong", { textContent: view.value }), make("small", { textContent: view.unit })),
      make("div", { className: "said" }, ...view.cautions.map((line) => para(line, "caution")), ...view.lines.map((line, at) => para(line, at ? "" : "lead")), ...folded(view.details), ...view.warnings.map((line) => para(line, "caution"))));
    cards.replaceChildren(...view.cards.map((card) => make("div", { className: "card" }, make("h2", { textContent: card.label }), para(card.value, "value " + card.tone), para(card.sub, "sub"))));
  }
  function subjects(found, first, second) {
    const rows = [...found.subjects].sort((x, y) => y.difference - x.difference), name = (row) => data.subjects[row.at].name;
    if (table) {
      const cell = (text, sort, how = "") => { const td = make("td", { className: "n " + how, textContent: text }); if (sort !== null) td.dataset.sort = sort; return td; };
      table.tBodies[0].replaceChildren(...rows.map((row) => { const mark = row.holm < STATS.ALPHA ? (row.difference > 0 ? "up" : "down") : "";
        return make("tr", {}, make("th", { scope: "row", textContent: name(row) }), cell(data.subjects[row.at].group, null), cell(row.n.toLocaleString(), row.n), cell(percent(row.first, 1), row.first), cell(percent(row.second, 1), row.second), cell(points(row.difference, 1, false), row.difference, mark),
          cell(`${points(row.low, 1, false)} … ${points(row.high, 1, false)}`, row.low), cell(row.b, row.b), cell(row.c, row.c), cell(pText(row.p), row.p), cell(pText(row.holm), row.holm, mark), cell(pText(row.bh), row.bh), cell(row.mde === null ? "–" : "±" + percent(row.mde, 1), row.mde ?? 2)); }));
      [...table.tHead.rows[0].cells].forEach((head, at) => { if (at === 3 || at === 4) head.querySelector("button").textContent = at === 3 ? first : second; });
      note.textContent = fill(words.subjects_note, { first, second, count: rows.length });
    }
    if (changes) {
      const low = Math.min(0, ...rows.map((row) => row.low)), high = Math.max(0, ...rows.map((row) => row.high)), x = (value) => (100 * (value - low)) / (high - low || 1);
      const lines = rows.map((row) => { const bar = make("span", { className: "whisker " + (row.holm < STATS.ALPHA ? (row.difference > 0 ? "up" : "down") : "") }), text = `${points(row.difference, 1)} [${points(row.low, 1, false)}, ${points(row.high, 1, false)}]`;
        for (const [key, value] of Object.entries({ low: x(row.low), high: x(row.high), at: x(row.difference), zero: x(0) })) bar.style.setProperty("--" + key, value);
        bar.append(make("i"), make("b"), make("u"));
        return make("tr", {}, make("th", { scope: "row", textContent: name(row) }), make("td", { className: "whiskers" }, bar), make("td", { className: "n", textContent: text })); });
      changes.replaceChildren(kept.chart[0].cloneNode(true), make("div", { className: "scroll" }, make("table", {}, make("caption", { textContent: `${first} → ${second}` }), make("tbody", {}, ...lines))));
      changes.querySelector(".legend")?.remove();
    }
  }
  function leaderboard(a, b) {
    for (const { row, delta, tone: how, prior } of kept.deltas) {
      const at = names.indexOf(row.dataset.run), cell = row.querySelector(".delta"), said = at < 0 || at === a ? null : verdict(a, at);
      row.classList.toggle("base", at === a);
      row.classList.toggle("contender", at === b);
      row.querySelector("th em")?.remove();
      if (at === a) row.querySelector("th").append(" ", make("em", { textContent: words.base }));
      if (a === standard[0]) { cell.replaceChildren(...delta); cell.className = how; row.querySelector(".prior").textContent = prior; continue; }
      cell.replaceChildren(said ? said.value : "", ...(said?.tone ? [make("span", { className: "star", textContent: "*", title: words.significant })] : []));
      cell.className = "n delta " + (said?.tone ?? "");
      row.querySelector(".prior").textContent = "";
    }
  }
  function show() {
    const [a, b] = chosen;
    if (base) { base.value = String(a); contender.value = String(b); }
    if (board) leaderboard(a, b);
    if (a === standard[0] && b === standard[1]) {
      parts.forEach((part, at) => part.replaceChildren(...kept.parts[at]));
      byId("summary").className = kept.tone;
      if (changes) changes.replaceChildren(...kept.chart);
      if (table) { table.tBodies[0].replaceChildren(...kept.rows); note.textContent = kept.note; [...table.tHead.rows[0].cells].forEach((head, at) => { if (at === 3 || at === 4) head.querySelector("button").textContent = names[at === 3 ? a : b]; }); }
      return;
    }
    const view = computed(a, b), ready = a === standard[0] ? data.views?.[b] : null;
    tell(ready ?? view);
    if (view.found) subjects(view.found, names[a], names[b]);
  }
  if (base && runs.length > 2) {
    for (const select of [base, contender]) {
      select.append(...names.map((name, at) => make("option", { value: String(at), textContent: name })));
      select.addEventListener("change", () => (select === base ? choose(Number(base.value), chosen[1]) : choose(chosen[0], Number(contender.value))));
    }
    base.closest(".picker").hidden = false;
    for (const button of board.querySelectorAll(".pick")) button.addEventListener("click", () => { const at = names.indexOf(button.closest("tr").dataset.run); if (at >= 0 && at !== chosen[0]) { choose(chosen[0], at); byId("summary").scrollIntoView(); } });
    show();
  }
  return { chosen: () => chosen, choose, changed: (listener) => listeners.push(listener) };
}
