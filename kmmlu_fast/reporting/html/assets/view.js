"use strict";
// What a reader has chosen, kept in the address behind "#" so that it survives a reload and can be sent: the place (a section, or a
// question such as Accounting/test/17), then run=, base=, q=, subject=, outcome=, order=, page=, open=, sort=, theme=, lang=.
// And the statistics of the subjects of pairs that the report did not come with: McNemar mid-p, Bonett and Price's interval, Holm, Benjamini-Hochberg.
const VIEW = (() => {
  const parse = (hash) => {
    const text = hash.replace(/^#/, ""), cut = text.indexOf("?");
    const place = decodeURIComponent(cut < 0 ? text : text.slice(0, cut));
    return { ...Object.fromEntries(new URLSearchParams(cut < 0 ? "" : text.slice(cut + 1))), place };
  };
  let state;
  try { state = parse(location.hash); } catch { state = { place: "" }; } // a broken % in an address
  const write = () => {
    const { place, ...rest } = state, kept = Object.entries(rest).filter(([, value]) => value);
    const query = kept.length ? "?" + new URLSearchParams(kept) : "";
    history.replaceState(null, "", "#" + encodeURI(place ?? "").replaceAll("?", "%3F") + query);
  };
  return { parse, get: (name) => state[name] ?? "", set: (changes) => { state = { ...state, ...changes }; write(); }, isQuestion: (place) => /^.+\/[^/]+\/[^/]+$/.test(place) };
})();

// The other language of the page stands in a template; it takes the place of this one before anything else looks at the page.
const LANG = (() => {
  const root = document.documentElement, other = document.getElementById("other");
  if (other && VIEW.get("lang") === other.dataset.lang) {
    document.querySelectorAll("body > .skip, body > header, body > main, body > footer").forEach((part) => part.remove());
    document.body.prepend(other.content.cloneNode(true));
    root.lang = other.dataset.lang;
  }
  const theme = VIEW.get("theme");
  if (theme === "dark" || theme === "light") root.style.colorScheme = theme;
  return root.lang;
})();

const STATS = (() => {
  const Z = 1.959963984540054, ALPHA = 0.05;
  const logs = [0]; // log factorials
  const logFactorial = (n) => { while (logs.length <= n) logs.push(logs[logs.length - 1] + Math.log(logs.length)); return logs[n]; };
  // Two-sided mid-p of McNemar's exact test (Fagerland, Lydersen and Laake 2013).
  const midP = (b, c) => {
    const n = b + c, k = Math.min(b, c);
    if (!n) return 1;
    const at = Math.exp(logFactorial(n) - logFactorial(k) - logFactorial(n - k) - n * Math.LN2);
    let sum = at, term = at;
    for (let i = k; i > 0 && term > 0; i--) { term *= i / (n - i + 1); sum += term; }
    return Math.min(1, Math.max(0, 2 * sum - at));
  };
  // 95 % interval of (c - b) / n, Bonett and Price 2012.
  const interval = (b, c, n) => {
    const first = (b + 1) / (n + 2), second = (c + 1) / (n + 2), centre = second - first;
    const half = Z * Math.sqrt((first + second - centre * centre) / (n + 2));
    return [Math.max(-1, centre - half), Math.min(1, centre + half)];
  };
  const corrected = (ps, holm) => {
    const order = ps.map((_, i) => i).sort((x, y) => ps[x] - ps[y]), m = ps.length, out = new Array(m);
    let best = holm ? 0 : 1;
    for (let at = 0; at < m; at++) {
      const rank = holm ? at : m - 1 - at, p = ps[order[rank]];
      best = holm ? Math.max(best, p * (m - rank)) : Math.min(best, (p * m) / (rank + 1));
      out[order[rank]] = Math.min(1, best);
    }
    return out;
  };
  // The normal distribution's quantile, for 0.5 <= p < 1 - 1e-9: its series, solved by bisection.
  const quantile = (p) => {
    const below = (x) => { let term = x, sum = x; for (let k = 1; k < 200 && Math.abs(term) > 1e-17 * Math.abs(sum); k++) { term *= (x * x) / (2 * k + 1); sum += term; } return 0.5 + (sum * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI); };
    let low = 0, high = 6;
    for (let i = 0; i < 60; i++) { const middle = (low + high) / 2; if (below(middle) < p) low = middle; else high = middle; }
    return high;
  };
  // Smallest true difference seen with 80 % power at that level (Connor 1987); null where none is.
  const detectable = (n, discordance, alpha = ALPHA) => {
    const z = quantile(1 - alpha / 2), short = (e) => { const s = Math.max(discordance, e); return (z * Math.sqrt(s) + 0.8416212335729143 * Math.sqrt(s - e * e)) ** 2 / (e * e) - n; };
    if (n < 1 || short(1) > 0) return null;
    let low = 1e-6, high = 1;
    for (let i = 0; i < 60; i++) { const middle = (low + high) / 2; if (short(middle) > 0) low = middle; else high = middle; }
    return high;
  };
  // Both runs' answers, question by question: over all and by subject. null: they share no question.
  const compare = (data, a, b) => {
    const empty = () => ({ n: 0, first: 0, second: 0, b: 0, c: 0 }), all = empty(), subjects = data.subjects.map(empty);
    const one = data.runs[a].letters, other = data.runs[b].letters, key = data.key;
    for (let i = 0; i < key.length; i++) {
      if (one[i] === " " || other[i] === " ") continue;
      const left = one[i] === key[i], right = other[i] === key[i];
      for (const part of [all, subjects[data.subject[i]]]) { part.n++; part.first += left; part.second += right; part.b += left && !right; part.c += !left && right; }
    }
    if (!all.n) return null;
    const finish = (part) => { const [low, high] = interval(part.b, part.c, part.n); return { ...part, first: part.first / part.n, second: part.second / part.n, difference: (part.c - part.b) / part.n, low, high, p: midP(part.b, part.c) }; };
    const share = (all.b + all.c) / all.n, tests = subjects.filter((part) => part.n).length, rows = subjects.map((part, at) => (part.n ? { at, ...finish(part), mde: detectable(part.n, share, ALPHA / tests) } : null)).filter(Boolean);
    const holm = corrected(rows.map((r) => r.p), true), bh = corrected(rows.map((r) => r.p), false);
    rows.forEach((row, i) => { row.holm = holm[i]; row.bh = bh[i]; });
    const mean = (name) => rows.reduce((sum, row) => sum + row[name], 0) / rows.length;
    return { ...finish(all), macro: { first: mean("first"), second: mean("second"), difference: mean("difference") }, subjects: rows };
  };
  return { ALPHA, midP, interval, corrected, detectable, compare };
})();
