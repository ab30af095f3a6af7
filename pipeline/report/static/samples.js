"use strict";
/* The samples browser. Scripts beside the page hand over data by browse.take(name, data). Text in
   the data becomes text nodes only. */
(() => {
  const root = document.getElementById("browser");
  const settings = JSON.parse(root.dataset.settings);
  const PAGES_KEPT = 24;
  const MARGIN = 4; // rows drawn above and below the visible ones
  const PAUSE_MS = 250; // after typing, and between updates of the list during a search
  const PILLS = 4; // at most this many short choices are buttons; others become a menu
  const SHORT = 14;
  const ANY = -1;

  /* Elements */

  function el(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") element.addEventListener(name, value);
      else if (value !== false && value !== null)
        element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  const figure = (number) => number.toLocaleString("en");
  const probability = (parts) =>
    parts ? (parts / settings.parts).toFixed(3) : `<${(1 / settings.parts).toFixed(3)}`;
  const visible = (piece) =>
    piece.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "◌";

  /* Data: recently used pages are kept */

  const waiting = new Map();
  const pages = new Map();
  globalThis.browse = {
    take(name, data) {
      waiting.get(name)?.(data);
      waiting.delete(name);
    },
  };

  function load(name) {
    return new Promise((resolve, reject) => {
      const script = el("script", { src: `${settings.folder}/${name}.js`, charset: "utf-8" });
      waiting.set(name, resolve);
      script.addEventListener("load", () => script.remove());
      script.addEventListener("error", () => {
        script.remove();
        pages.delete(name);
        reject(new Error(`${settings.folder}/${name}.js cannot be read; keep it beside this page`));
      });
      document.head.append(script);
    });
  }

  function page(name) {
    const loading = pages.get(name) ?? load(name);
    pages.delete(name);
    pages.set(name, loading);
    if (pages.size > PAGES_KEPT) pages.delete(pages.keys().next().value);
    return loading;
  }

  /* One sample: tokens by probability, and other likely tokens at the current one */

  function tokens(data, row, answer) {
    const [ids, parts, counts, others, othersParts, whole] = data.rows[row];
    const texts = ids.map((id) => data.pieces[id]);
    for (const [place, text] of whole) texts[place] = text;
    let end = 0;
    const ends = counts.map((count) => (end += count));
    const panel = el("div", { class: "likely", "aria-live": "polite" });
    const spans = texts.map((text, place) => {
      const shade = settings.shades.findIndex((least) => parts[place] >= least * settings.parts);
      const isAnswer = answer !== null && place >= answer[0] && place < answer[1];
      const shown = text.includes("\n") ? text.replaceAll("\n", "⏎\n") : text || "◌";
      return el(
        "span",
        {
          class: `token shade-${shade}${isAnswer ? " answer" : ""}`,
          tabindex: place ? -1 : 0,
          "data-place": place,
        },
        shown,
      );
    });
    let current = 0;

    function select(place) {
      for (const [span, isIt] of [
        [spans[current], false],
        [spans[place], true],
      ]) {
        span.classList.toggle("current", isIt);
        span.tabIndex = isIt ? 0 : -1;
      }
      current = place;
      const entries = [[texts[place], parts[place], true]];
      for (let at = ends[place] - counts[place]; at < ends[place]; at++)
        entries.push([data.pieces[others[at]], othersParts[at], false]);
      const rest = Math.max(
        0,
        entries.reduce((left, entry) => left - entry[1], settings.parts),
      );
      entries.sort((a, b) => b[1] - a[1]);
      const list = el("ol", {}, ...entries.map(likely), likely([null, rest, false]));
      panel.replaceChildren(el("p", {}, `Token ${place + 1} of ${texts.length}`), list);
    }

    const hover = (event) =>
      event.target.dataset.place && select(Number(event.target.dataset.place));
    const step = (event) => spans[current + { ArrowRight: 1, ArrowLeft: -1 }[event.key]]?.focus();
    select(0);
    const named = {
      role: "group",
      "aria-label": "tokens; the arrow keys move from one to the next",
    };
    return el(
      "div",
      {},
      legend(),
      el(
        "div",
        { class: "tokens", ...named, mouseover: hover, focusin: hover, keydown: step },
        ...spans,
      ),
      panel,
    );
  }

  function likely([piece, parts, written]) {
    const bar = el("span", { class: "share" });
    bar.style.width = `${(100 * parts) / settings.parts}%`;
    const name =
      piece === null ? el("span", { class: "soft" }, "all others") : el("code", {}, visible(piece));
    return el(
      "li",
      { class: written ? "written" : null },
      name,
      el("span", { class: "track" }, bar),
      el("span", {}, probability(parts)),
    );
  }

  function legend() {
    const { shades } = settings;
    const words = shades.map((least, shade) => (least ? `≥ ${least}` : `< ${shades[shade - 1]}`));
    const shown = words.map((word, shade) => el("span", { class: `token shade-${shade}` }, word));
    return el(
      "p",
      { class: "legend soft" },
      "Probability of each token: ",
      ...shown.flatMap((example) => [example, " "]),
      "; bold: the answer",
    );
  }

  function facts(rows) {
    const shown = rows.filter(([, value]) => value !== null && value !== "");
    return el(
      "dl",
      { class: "facts" },
      ...shown.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
    );
  }

  const tag = (text, kind = "") => el("span", { class: `tag ${kind}` }, text);
  const KINDS = { kept: "good", right: "good", rejected: "bad", wrong: "bad" };

  const RENDER = {
    generated: {
      what: "samples",
      placeholder: "Search ids, prompts, rationales, answers",
      text: (row) => [
        row.text,
        row.rationale,
        row.answer,
        row.target,
        ...row.inputs.map((input) => input[1]),
      ],
      marks(value) {
        const verdict = value("verdict");
        const reason = verdict === "rejected" ? value("reason") : verdict === "kept" ? "" : verdict;
        const truth = value("truth");
        return [
          truth === "unknown" ? null : tag(truth, KINDS[truth]),
          reason ? tag(reason, KINDS[verdict]) : null,
        ];
      },
      detail(view, row, data) {
        const value = (key) => view.value(key, row);
        const logprob = view.index.numbers[row];
        const slot = el(
          "div",
          { class: "slot" },
          logprob === null
            ? el("p", { class: "reply" }, data.text)
            : el("p", { class: "soft" }, "…"),
        );
        if (logprob !== null) {
          page(`${view.pageOf(row)}.tokens`).then(
            (probabilities) =>
              slot.replaceChildren(tokens(probabilities, row % view.index.page, data.spans[1])),
            (error) => slot.replaceChildren(el("p", { class: "note" }, error.message)),
          );
        }
        const slice = value("slice");
        return [
          el(
            "p",
            { class: "tags" },
            tag(value("verdict"), KINDS[value("verdict")]),
            data.target === null ? null : tag(value("truth"), KINDS[value("truth")]),
            slice === "none" ? null : tag(slice),
          ),
          data.said && el("p", { class: "why" }, el("b", {}, data.said[0]), `: ${data.said[1]}`),
          el("h4", {}, "Prompt"),
          facts(data.inputs),
          el("h4", {}, "Reply"),
          facts([
            ["rationale", data.rationale],
            ["answer", data.answer ?? "none found"],
            ["ground truth", data.target],
            ["score", data.why && `${value("truth")}: ${data.why}`],
          ]),
          el("h4", {}, logprob === null ? "Full text" : "Teacher's token probabilities"),
          slot,
          el(
            "p",
            { class: "soft small" },
            `${figure(data.tokens)} tokens, ended by ${data.ended}, `,
            logprob === null ? "no logprobs" : `mean logprob ${logprob.toFixed(3)}`,
          ),
        ];
      },
    },
    "held-out": {
      what: "held-out examples",
      placeholder: "Search ids, questions, answers",
      text: (row) => [
        row.target,
        ...row.inputs.map((input) => input[1]),
        ...row.models.flatMap((model) => [model[3], model[4]]),
      ],
      marks: (value, view) =>
        view.index.facets
          .filter((facet) => facet.key.startsWith("model-"))
          .map((facet) => [facet.label, value(facet.key)])
          .map(([model, verdict]) =>
            tag(`${{ right: "✓", wrong: "✗" }[verdict] ?? "·"} ${model}`, KINDS[verdict]),
          ),
      detail: (view, row, data) => [
        el("h4", {}, "Question"),
        facts([...data.inputs, ["ground truth", data.target]]),
        data.inputs.length
          ? null
          : el(
              "p",
              { class: "soft" },
              "The file of held-out examples was missing when the report was written.",
            ),
        ...data.models.map(([model, verdict, score, text, answer, why]) =>
          el(
            "article",
            { class: "model" },
            el(
              "h4",
              {},
              model,
              " ",
              tag(verdict === "partly right" ? score.toFixed(3) : verdict, KINDS[verdict]),
            ),
            el("p", { class: "reply" }, text.trim() || "(nothing)"),
            facts([
              ["answer", answer ?? "none found"],
              ["score", `${verdict}: ${why}`],
            ]),
          ),
        ),
      ],
    },
  };

  /* A list, and the detail of the selected row */

  class View {
    constructor(name, index, panel) {
      Object.assign(this, {
        name,
        index,
        panel,
        render: RENDER[name],
        query: "",
        sort: "input",
        selected: ANY,
        ticket: 0,
        shown: 0,
      });
      this.count = index.ids.length;
      this.codes = index.facets.map((facet) => Uint32Array.from(facet.codes));
      this.chosen = index.facets.map(() => ANY);
      this.orders = { input: Uint32Array.from(index.ids.keys()) };
      this.matches = null; // by row: 1 if it has the words of the search
      this.rows = this.orders.input; // the listed rows, in this order
      this.build();
      this.apply();
      this.open(0);
    }

    value(key, row) {
      const at = this.index.facets.findIndex((facet) => facet.key === key);
      return this.index.facets[at].values[this.codes[at][row]];
    }

    pageOf(row) {
      return `${this.name}/${String(Math.floor(row / this.index.page)).padStart(5, "0")}`;
    }

    build() {
      const { index, render } = this;
      this.search = el("input", {
        type: "search",
        placeholder: render.placeholder,
        "aria-label": render.placeholder,
        input: () => {
          clearTimeout(this.typing);
          this.typing = setTimeout(() => this.find(this.search.value), PAUSE_MS);
        },
      });
      const sorts = index.sorts.map(([key, label]) => el("option", { value: key }, label));
      this.sorting = el(
        "select",
        { "aria-label": "Sort", change: () => this.set({ sort: this.sorting.value }) },
        ...sorts,
      );
      this.reset = el(
        "button",
        {
          type: "button",
          hidden: true,
          click: () => this.set({ chosen: this.chosen.map(() => ANY), query: "" }),
        },
        "Show all",
      );
      this.facets = index.facets.map((facet, at) => this.facet(facet, at));
      const used = this.facets.filter(
        (facet) =>
          facet.used.length > 1 || (facet.used.length && /^(reason$|model-)/.test(facet.key)),
      );
      for (const facet of used) this.choices(facet, used.length <= PILLS + 1);
      this.status = el("span", { role: "status" });
      this.stop = el(
        "button",
        { type: "button", hidden: true, click: () => this.stopped() },
        "Stop",
      );
      this.spacer = el("div", { class: "spacer" });
      this.list = el(
        "div",
        {
          class: "list",
          role: "listbox",
          tabindex: 0,
          "aria-label": render.what,
          scroll: () => requestAnimationFrame(() => this.draw()),
          click: (event) =>
            this.go(Number(event.target.closest("[data-place]")?.dataset.place ?? ANY)),
        },
        this.spacer,
      );
      this.detail = el("div", { class: "detail", tabindex: -1 });
      this.panel.replaceChildren(
        ...(index.note ? [el("p", { class: "soft" }, index.note)] : []),
        el("div", { class: "tools" }, this.search, this.sorting, this.reset),
        el("div", { class: "facets" }, ...used.map((facet) => facet.box)),
        el(
          "p",
          { class: "status soft" },
          this.status,
          " ",
          this.stop,
          el("span", { class: "keys" }, "keys: / search, j k or ↑ ↓, Enter, Esc"),
        ),
        el("div", { class: "columns" }, this.list, this.detail),
      );
      this.panel.addEventListener("keydown", (event) => this.key(event));
      new ResizeObserver(() => this.draw()).observe(this.list);
    }

    facet(facet, at) {
      const totals = new Uint32Array(facet.values.length);
      for (const code of this.codes[at]) totals[code]++;
      return {
        ...facet,
        at,
        used: [...facet.values.keys()].filter((code) => totals[code] && facet.values[code]),
      };
    }

    choices(facet, few) {
      const say = (code) => (code === ANY ? "all" : facet.values[code]);
      const codes = [ANY, ...facet.used];
      const choose = (code) => this.set({ chosen: this.chosen.with(facet.at, code) });
      if (
        few &&
        facet.used.length <= PILLS &&
        facet.used.every((code) => facet.values[code].length <= SHORT)
      ) {
        const buttons = codes.map((code) =>
          el("button", { type: "button", click: () => choose(code) }),
        );
        facet.box = el(
          "div",
          { class: "choice pills", role: "group", "aria-label": facet.label },
          el("span", { class: "soft" }, facet.label),
          ...buttons,
        );
        facet.tell = (counts) =>
          buttons.forEach((button, at) => {
            button.setAttribute("aria-pressed", this.chosen[facet.at] === codes[at]);
            button.replaceChildren(
              say(codes[at]),
              " ",
              el("span", { class: "count" }, figure(counts(codes[at]))),
            );
          });
      } else {
        const options = codes.map((code) => el("option", { value: code }));
        const menu = el("select", { change: () => choose(Number(menu.value)) }, ...options);
        facet.box = el(
          "label",
          { class: "choice" },
          el("span", { class: "soft" }, facet.label),
          menu,
        );
        facet.tell = (counts) => {
          options.forEach(
            (option, at) =>
              (option.textContent = `${say(codes[at])} (${figure(counts(codes[at]))})`),
          );
          menu.value = this.chosen[facet.at];
        };
      }
    }

    /* Which rows are listed */

    order() {
      const { ids, numbers } = this.index;
      const by = {
        id: (a, b) => (ids[a] < ids[b] ? -1 : Number(ids[a] > ids[b])),
        rising: (a, b) => (numbers[a] ?? Infinity) - (numbers[b] ?? Infinity) || a - b,
        falling: (a, b) => (numbers[b] ?? -Infinity) - (numbers[a] ?? -Infinity) || a - b,
      };
      return (this.orders[this.sort] ??= this.orders.input.slice().sort(by[this.sort]));
    }

    apply() {
      const counts = this.index.facets.map((facet) => new Uint32Array(facet.values.length));
      const rows = [];
      const { chosen, codes, matches } = this;
      for (const row of this.order()) {
        if (matches && !matches[row]) continue;
        let misses = 0,
          missed = ANY;
        for (let at = 0; at < codes.length && misses < 2; at++) {
          if (chosen[at] === ANY || codes[at][row] === chosen[at]) continue;
          misses++;
          missed = at;
        }
        if (misses === 1) counts[missed][codes[missed][row]]++;
        if (misses) continue;
        rows.push(row);
        for (let at = 0; at < codes.length; at++) counts[at][codes[at][row]]++;
      }
      this.rows = rows;
      for (const facet of this.facets) {
        facet.tell?.((code) =>
          code === ANY
            ? counts[facet.at].reduce((sum, count) => sum + count, 0)
            : counts[facet.at][code],
        );
      }
      this.reset.hidden = !this.query && chosen.every((code) => code === ANY);
      this.spacer.style.height = `${rows.length * this.rowHeight()}px`;
      this.say();
      this.draw();
    }

    say(also = "") {
      const of = this.rows.length < this.count ? ` of ${figure(this.count)}` : "";
      this.status.textContent = `${figure(this.rows.length)}${of} ${this.render.what}${also}`;
    }

    set({ query = this.query, ...others }) {
      Object.assign(this, others);
      this.sorting.value = this.sort;
      this.search.value = query;
      if (query !== this.query) return this.find(query);
      this.apply();
      return this.settle();
    }

    /* After other choices: scroll to the top, and select a listed row. */
    settle() {
      this.list.scrollTop = 0;
      if (this.rows.length && !this.rows.includes(this.selected)) this.open(this.rows[0]);
      this.remember();
    }

    async find(query) {
      const ticket = ++this.ticket;
      const words = query.toLowerCase().split(/\s+/).filter(Boolean);
      const holds = (texts) => {
        const text = texts.join("\n").toLowerCase();
        return words.every((word) => text.includes(word));
      };
      this.query = query.trim();
      this.stop.hidden = true;
      const { ids, heads, lines, page: size } = this.index;
      const matches = (this.matches = words.length
        ? Uint8Array.from(ids, (id, row) => holds([id, heads[row], lines[row]]))
        : null);
      this.apply();
      this.settle();
      let drawn = performance.now();
      for (let first = 0; matches && first < this.count; first += size) {
        const texts = await page(this.pageOf(first)).catch(() => []);
        if (ticket !== this.ticket) return;
        texts.forEach(
          (text, at) =>
            (matches[first + at] ||= holds([ids[first + at], ...this.render.text(text)])),
        );
        if (performance.now() - drawn < PAUSE_MS) continue;
        drawn = performance.now();
        this.stop.hidden = false;
        this.apply();
        this.searched = `${Math.floor((100 * (first + size)) / this.count)} % of the texts`;
        this.say(`; ${this.searched} searched`);
      }
      this.stop.hidden = true;
      this.apply();
      if (matches && !this.rows.includes(this.selected)) this.settle();
    }

    stopped() {
      this.ticket++;
      this.stop.hidden = true;
      this.say(`; stopped after ${this.searched}`);
    }

    /* The visible rows of the list */

    rowHeight() {
      return 3.5 * parseFloat(getComputedStyle(document.documentElement).fontSize);
    }

    draw() {
      const height = this.rowHeight();
      const first = Math.max(0, Math.floor(this.list.scrollTop / height) - MARGIN);
      const last = Math.min(
        this.rows.length,
        Math.ceil((this.list.scrollTop + this.list.clientHeight) / height) + MARGIN,
      );
      const places = Array.from({ length: Math.max(0, last - first) }, (_, at) => first + at);
      this.spacer.replaceChildren(...places.map((place) => this.line(place, height)));
      this.list.classList.toggle("empty", !this.rows.length);
    }

    line(place, height) {
      const row = this.rows[place];
      const { ids, heads, lines } = this.index;
      const marks = this.render.marks((key) => this.value(key, row), this);
      const element = el(
        "div",
        {
          role: "option",
          id: `${this.name}-${row}`,
          class: "line",
          "data-place": place,
          "aria-selected": String(row === this.selected),
          "aria-posinset": place + 1,
          "aria-setsize": this.rows.length,
        },
        el("span", { class: "head" }, el("b", {}, heads[row]), ...marks),
        el("span", { class: "soft" }, lines[row] || ids[row]),
      );
      element.style.transform = `translateY(${place * height}px)`;
      element.style.height = `${height}px`;
      return element;
    }

    go(place) {
      if (!(place in this.rows)) return;
      const height = this.rowHeight();
      this.list.scrollTop = Math.min(
        Math.max(this.list.scrollTop, (place + 1) * height - this.list.clientHeight),
        place * height,
      );
      this.open(this.rows[place]);
      this.remember();
    }

    async open(row) {
      this.selected = row;
      this.list.setAttribute("aria-activedescendant", `${this.name}-${row}`);
      this.draw();
      const shown = ++this.shown;
      let parts;
      try {
        const rows = await page(this.pageOf(row));
        if (shown !== this.shown) return;
        parts = this.render.detail(this, row, rows[row % this.index.page]);
      } catch (error) {
        parts = [el("p", { class: "note" }, error.message)];
      }
      const link = el("a", { href: this.hash(), title: "link to this row" }, "#");
      this.detail.replaceChildren(
        el("h3", {}, this.index.ids[row], " ", link),
        ...parts.filter((part) => part !== null),
      );
      this.detail.scrollTop = 0;
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
      const inSearch = event.target === this.search;
      const screen = Math.max(1, Math.floor(this.list.clientHeight / this.rowHeight()) - 1);
      const moves = {
        ArrowDown: 1,
        ArrowUp: -1,
        PageDown: screen,
        PageUp: -screen,
        Home: -Infinity,
        End: Infinity,
      };
      if (!inSearch) Object.assign(moves, { j: 1, k: -1 });
      const inList = event.target === this.list;
      if (event.key === "Escape" && inSearch && this.search.value) this.set({ query: "" });
      else if (event.key === "Escape" || (event.key === "Enter" && inSearch)) this.list.focus();
      else if (event.key === "Enter" && inList)
        (this.detail.querySelector(".token[tabindex='0'].current") ?? this.detail).focus();
      else if (
        event.key in moves &&
        (inList || "jk".includes(event.key) || (inSearch && event.key === "ArrowDown"))
      ) {
        this.list.focus();
        this.go(
          Math.min(
            Math.max(this.rows.indexOf(this.selected) + moves[event.key], 0),
            this.rows.length - 1,
          ),
        );
      } else return;
      event.preventDefault();
    }

    /* The address holds the selection, so that it can be linked */

    hash() {
      const state = new URLSearchParams();
      if (this.name !== "generated") state.set("view", this.name);
      if (this.selected !== ANY) state.set("id", this.index.ids[this.selected]);
      if (this.query) state.set("q", this.query);
      if (this.sort !== "input") state.set("sort", this.sort);
      for (const { key, values, at } of this.facets)
        if (this.chosen[at] !== ANY) state.set(key, values[this.chosen[at]]);
      return `#samples&${state}`;
    }

    remember() {
      history.replaceState(null, "", this.hash());
    }

    restore(state) {
      const chosen = this.facets.map(({ key, values }) =>
        state.has(key) ? values.indexOf(state.get(key)) : ANY,
      );
      const sort = this.index.sorts.some(([key]) => key === state.get("sort"))
        ? state.get("sort")
        : "input";
      const row = state.has("id") ? this.index.ids.indexOf(state.get("id")) : ANY;
      this.set({ chosen, sort, query: state.get("q") ?? "" });
      if (row === ANY) return;
      this.open(row);
      this.list.scrollTop = Math.max(0, (this.rows.indexOf(row) - 2) * this.rowHeight());
      this.remember();
    }
  }

  /* The two views */

  const views = new Map();
  const tabs = [...root.querySelectorAll(".views button")];
  let active = "generated";

  async function show(name) {
    active = name;
    for (const tab of tabs) {
      tab.setAttribute("aria-pressed", String(tab.dataset.view === name));
      document.getElementById(`panel-${tab.dataset.view}`).hidden = tab.dataset.view !== name;
    }
    const panel = document.getElementById(`panel-${name}`);
    if (!views.has(name)) {
      panel.replaceChildren(el("p", { class: "soft" }, "Loading…"));
      views.set(
        name,
        load(`${name}/index`).then((index) => new View(name, index, panel)),
      );
    }
    const view = await views
      .get(name)
      .catch((error) => panel.replaceChildren(el("p", { class: "note" }, error.message)));
    root.dataset.ready = name;
    return view;
  }

  async function fromAddress() {
    const linked = location.hash.startsWith("#samples&");
    const state = new URLSearchParams(linked ? location.hash.slice("#samples&".length) : "");
    const name = tabs.some((tab) => tab.dataset.view === state.get("view"))
      ? state.get("view")
      : "generated";
    const view = await show(name);
    if (!linked) return;
    view?.restore(state);
    root.scrollIntoView();
  }

  root.addEventListener("click", async (event) => {
    const tab = event.target.closest(".views button");
    if (tab) (await show(tab.dataset.view))?.remember();
  });
  document.addEventListener("keydown", async (event) => {
    if (
      event.key !== "/" ||
      event.ctrlKey ||
      event.metaKey ||
      event.target.matches("input, select, textarea")
    )
      return;
    event.preventDefault();
    (await views.get(active))?.search.focus();
  });
  addEventListener("hashchange", () => location.hash.startsWith("#samples&") && fromAddress());

  root.querySelector(".app").hidden = false;
  requestAnimationFrame(() => setTimeout(fromAddress)); // the page is painted first
})();
