"use strict";
(() => {
  const payload = JSON.parse(document.getElementById("payload").textContent);
  const root = document.documentElement;
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // Tables travel as columns; charts want rows.
  const rows = {};
  for (const [name, columns] of Object.entries(payload.tables)) {
    const keys = Object.keys(columns);
    const length = keys.length ? columns[keys[0]].length : 0;
    rows[name] = Array.from({ length }, (_, i) =>
      Object.fromEntries(keys.map((key) => [key, columns[key][i]])));
  }

  const look = () => {
    const text = { labelColor: colour("--soft"), titleColor: colour("--soft"),
      labelFont: colour("--sans"), titleFont: colour("--sans"),
      labelFontSize: 11.5, titleFontSize: 12, titleFontWeight: 500 };
    return {
      background: "transparent", font: colour("--sans"),
      view: { stroke: null },
      axis: { ...text, gridColor: colour("--hair"), domainColor: colour("--line"),
        tickColor: colour("--line"), titlePadding: 8, labelPadding: 5, labelFlush: false },
      legend: { ...text, titleLimit: 260, labelLimit: 260 },
      header: text, rule: { color: colour("--faint") }, text: { color: colour("--soft"), font: colour("--sans") },
    };
  };

  const lighter = { "0072b2": "#45a3dd", "d55e00": "#f08237", "009e73": "#23b98f" };  // on dark ground

  async function draw(holder) {
    const spec = structuredClone(payload.charts[holder.dataset.chart]);
    const hints = spec.usermeta || {};
    delete spec.usermeta;
    spec.datasets = { ...(spec.datasets || {}) };
    for (const name of hints.tables || []) spec.datasets[name] = rows[name];
    if (hints.aspect) {  // a plate keeps the shape of a plate
      spec.height = Math.round(Math.max(90, (holder.clientWidth - hints.margin) * hints.aspect));
    }
    // Colours that follow light and dark: "ink:--line" in a specification.
    let text = JSON.stringify(spec).replace(/"ink:(--[a-z]+)"/g, (_, name) => JSON.stringify(colour(name)));
    if (dark.matches) text = text.replace(/"#(0072b2|d55e00|009e73)"/g, (_, hex) => JSON.stringify(lighter[hex]));
    const themed = JSON.parse(text);
    await vegaEmbed(holder, themed, {
      config: look(), ast: true, renderer: hints.renderer || "svg",
      actions: { export: true, source: false, compiled: false, editor: false },
      downloadFileName: hints.file || holder.dataset.chart,
      tooltip: { theme: dark.matches ? "dark" : "light" },
    });
  }

  let turn = 0;
  async function drawAll() {
    const mine = ++turn;
    root.dataset.charts = "drawing";
    for (const holder of document.querySelectorAll("[data-chart]")) {
      if (mine !== turn) return;
      try {
        await draw(holder);
      } catch (error) {
        holder.textContent = `This chart could not be drawn: ${error.message}`;
        console.error(holder.dataset.chart, error);
      }
    }
    root.dataset.charts = "drawn";
  }
  let width = window.innerWidth, pending = 0;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(pending);
    pending = setTimeout(drawAll, 180);
  });
  dark.addEventListener("change", drawAll);

  // Gallery: one tier at a time, one class or all.
  const gallery = document.querySelector("[data-gallery]");
  if (gallery) {
    const tabs = [...gallery.querySelectorAll("[role=tab]")];
    const chips = [...gallery.querySelectorAll(".chips button")];
    const state = { tier: tabs[0].dataset.tier, called: "" };
    const show = () => {
      let seen = 0;
      for (const tab of tabs) {
        const on = tab.dataset.tier === state.tier;
        tab.setAttribute("aria-selected", on);
        tab.tabIndex = on ? 0 : -1;
      }
      for (const chip of chips) chip.setAttribute("aria-pressed", chip.dataset.called === state.called);
      for (const cell of gallery.querySelectorAll(".cell")) {
        cell.hidden = cell.dataset.tier !== state.tier ||
          (state.called !== "" && cell.dataset.called !== state.called);
        seen += cell.hidden ? 0 : 1;
      }
      for (const line of gallery.querySelectorAll("[data-how]")) line.hidden = line.dataset.how !== state.tier;
      gallery.querySelector("[data-none]").hidden = seen > 0;
    };
    tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => { state.tier = tab.dataset.tier; show(); });
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = tabs[(i + step + tabs.length) % tabs.length];
        state.tier = next.dataset.tier; show(); next.focus();
      });
    });
    for (const chip of chips) chip.addEventListener("click", () => { state.called = chip.dataset.called; show(); });
    show();
  }

  // Fields: outlines on and off.
  for (const button of document.querySelectorAll("[data-outlines]")) {
    button.addEventListener("click", () => {
      const bare = button.getAttribute("aria-pressed") === "true";
      button.setAttribute("aria-pressed", !bare);
      for (const field of document.querySelectorAll(".field")) field.classList.toggle("bare", bare);
    });
  }

  // Tables that are wider than their box show that they scroll.
  const widths = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      target.classList.toggle("more", target.scrollWidth > target.clientWidth + 1);
    }
  });
  for (const table of document.querySelectorAll(".scroll > table")) widths.observe(table.parentElement);

  // Methods: copy.
  for (const button of document.querySelectorAll("[data-copy]")) {
    const said = button.textContent;
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copy).innerText;
      try {
        await navigator.clipboard.writeText(text);
      } catch {  // file:// in some browsers: the old way
        const area = Object.assign(document.createElement("textarea"), { value: text });
        document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = said; }, 1600);
    });
  }

  // Contents: where the reader is.
  const links = new Map([...document.querySelectorAll("nav.contents li a")]
    .map((link) => [link.getAttribute("href").slice(1), link]));
  const sections = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  const mark = () => {
    const line = window.innerHeight * .28;
    let here = sections[0];
    for (const section of sections) if (section.getBoundingClientRect().top < line) here = section;
    if (window.innerHeight + window.scrollY >= root.scrollHeight - 4) here = sections.at(-1);
    for (const [id, link] of links) {
      if (here && id === here.id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  window.addEventListener("scroll", mark, { passive: true });
  mark();
  drawAll();
})();
