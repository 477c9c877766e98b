"use strict";

// Libraries and data are compressed, so that thousands of answers take little space.
async function unpacked(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function element(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

// ---------------------------------------------------------------- charts

const CATEGORIES = {
  light: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#000000", "#7f7f7f"],
  dark: ["#56b4e9", "#ff9e5e", "#2fd0a0", "#e8a2cb", "#f0e442", "#9ecbff", "#ffffff", "#a0a0a0"],
};
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function theme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const labels = { labelColor: colour("text"), titleColor: colour("soft"), titleFontWeight: "normal" };
  return {
    background: "transparent",
    font: "system-ui, sans-serif",
    axis: { ...labels, gridColor: colour("line"), domainColor: colour("line"), tickColor: colour("line") },
    legend: { ...labels, orient: "bottom", columns: window.innerWidth < 600 ? 2 : 4 },
    title: { color: colour("text"), anchor: "start", fontSize: 13, fontWeight: 600 },
    view: { stroke: null },
    range: {
      category: CATEGORIES[dark.matches ? "dark" : "light"],
      ordinal: { scheme: "blues", extent: dark.matches ? [0.15, 0.85] : [0.25, 1] },
    },
    line: { color: CATEGORIES[dark.matches ? "dark" : "light"][0] },
    point: { color: CATEGORIES[dark.matches ? "dark" : "light"][0] },
    bar: { color: CATEGORIES[dark.matches ? "dark" : "light"][0] },
    area: { color: CATEGORIES[dark.matches ? "dark" : "light"][0] },
  };
}

async function drawCharts(charts) {
  for (const place of document.querySelectorAll("[data-charts]")) {
    place.replaceChildren();
    for (const spec of charts[place.dataset.charts]) {
      const node = place.appendChild(element("div", undefined, "chart"));
      await vegaEmbed(node, structuredClone(spec), { renderer: "svg", actions: false, config: theme() });
    }
  }
}

// ---------------------------------------------------------------- answers

const STEP = 20; // cards that are added at a time
const total = (numbers) => numbers.reduce((sum, number) => sum + number, 0);
const mean = (answers) => (answers.length ? total(answers.map((answer) => answer.r)) / answers.length : null);

function rewardOf(question, round) {
  return mean(question.rounds[round] || []);
}

// The mean rewards of all answers to a question by the way in which they were given, such as with and without code.
function byPath(question) {
  const paths = {};
  for (const answer of Object.values(question.rounds).flat()) {
    if (answer.p) (paths[answer.p] = paths[answer.p] || []).push(answer);
  }
  return Object.fromEntries(Object.entries(paths).map(([path, answers]) => [path, mean(answers)]));
}

function pathsOf(question, round) {
  const own = (question.rounds[round] || []).filter((answer) => answer.v === "auto");
  return [...new Set(own.map((answer) => answer.p))].sort().join(" ");
}

function takesWorsePath(question, round) {
  const rewards = byPath(question);
  const best = Math.max(...Object.values(rewards));
  return (question.rounds[round] || []).some((answer) => answer.v === "auto" && answer.p && rewards[answer.p] < best);
}

const SHOWN = {
  all: () => true,
  worse: (question, before, now) => rewardOf(question, now) < rewardOf(question, before),
  better: (question, before, now) => rewardOf(question, now) > rewardOf(question, before),
  low: (question, before, now, least) => rewardOf(question, now) === least,
  path: (question, before, now) => pathsOf(question, now) !== pathsOf(question, before),
  other: (question, before, now) => takesWorsePath(question, now),
  cut: (question, before, now) => (question.rounds[now] || []).some((answer) => answer.f === "length"),
};

// Blue stands for likely tokens, ratios above 1 and advantages above 0; orange for the opposite.
const BLUE = "0, 114, 178";
const ORANGE = "213, 94, 0";
const CLASSES = 9;

function shade(share) {
  return share === 0 ? "" : `rgba(${share > 0 ? BLUE : ORANGE}, ${(0.55 * Math.min(1, Math.abs(share))).toFixed(2)})`;
}

function shadeOf(answer, colour, place) {
  const known = answer[colour === "ad" ? "tp" : colour];
  if (!known || known[place] === "-" || known[place] === undefined) return ["", "not sampled by the policy"];
  if (colour === "ad") return [shade(answer.ad), `advantage ${answer.ad}`];

  const step = Number(known[place]);
  if (colour === "tp") {
    return [shade(step / (CLASSES - 1) - 1), `probability ${(step / CLASSES).toFixed(2)} to ${((step + 1) / CLASSES).toFixed(2)}`];
  }
  const middle = (CLASSES - 1) / 2;
  const ratio = Math.pow(1.5, (step - middle) / (middle + 0.5));
  return [shade((step - middle) / middle), `ratio about ${ratio.toFixed(2)}`];
}

// The text of an answer, with a span for each token if a colour is chosen and known.
function textNode(answer, colour) {
  const isKnown = colour && answer.tl && (colour === "ad" ? answer.ad !== undefined : answer[colour]);
  if (!isKnown) return element("pre", answer.a.trim());

  const node = element("pre");
  const letters = Array.from(answer.a); // lengths count characters, not UTF-16 units
  let start = 0;
  answer.tl.forEach((length, place) => {
    const span = element("span", letters.slice(start, start + length).join(""));
    const [background, title] = shadeOf(answer, colour, place);
    span.style.background = background;
    span.title = title;
    node.appendChild(span);
    start += length;
  });
  node.append(letters.slice(start).join(""));
  return node;
}

function answerNode(answer, colour) {
  const node = element("div", undefined, "answer");
  const isBinary = answer.r === 0 || answer.r === 1;
  const verdict = isBinary ? (answer.r ? "✓ right" : "✗ wrong") : `reward ${answer.r}`;
  const line = node.appendChild(element("div", verdict, `verdict ${isBinary ? (answer.r ? "right" : "wrong") : ""}`));
  const facts = [answer.v !== "auto" && answer.v, answer.p, `${answer.n} tokens`, answer.f !== "eos" && answer.f];
  line.appendChild(element("small", ` ${facts.filter(Boolean).join(", ")}`));
  node.appendChild(textNode(answer, colour));
  node.appendChild(element("div", answer.u, "uid"));
  return node;
}

// A column of answers is a round, or a round of one of several runs: [key in question.rounds, name].
function cardOf(question, columnNames, colour) {
  const card = element("article", undefined, "card");
  const title = card.appendChild(element("h4", question.question));
  const reference = question.reference === null ? "" : `; reference: ${question.reference}`;
  title.appendChild(element("small", `${question.level}${reference}`));

  const columns = card.appendChild(element("div", undefined, "rounds"));
  for (const [round, name] of columnNames) {
    const answers = question.rounds[round] || [];
    const column = columns.appendChild(element("div", undefined, "round"));
    const right = answers.filter((answer) => answer.r > 0.5).length;
    column.appendChild(element("b", `${name}${answers.length > 1 ? `: ${right} of ${answers.length} right` : ""}`));
    if (!answers.length) column.appendChild(element("p", "not asked"));
    answers.slice(0, 3).forEach((answer) => column.appendChild(answerNode(answer, colour)));
    if (answers.length > 3) {
      const more = column.appendChild(element("details"));
      more.appendChild(element("summary", `${answers.length - 3} more`));
      answers.slice(3).forEach((answer) => more.appendChild(answerNode(answer, colour)));
    }
  }
  return card;
}

function options(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => new Option(text, value, value === chosen, value === chosen)));
}

function showAnswers(sets) {
  const form = document.getElementById("filters");
  if (!form) return;
  const { set, level, before, now, show, colour, text } = form.elements;
  const cards = document.getElementById("cards");
  const more = document.getElementById("more");
  let columns, questions, chosen, least, shown;

  function chooseSet() {
    questions = sets[set.value].questions;
    columns = sets[set.value].columns;
    const levels = [...new Set(questions.map((question) => question.level))].sort();
    options(level, [["", "all"], ...levels.map((name) => [name, name])], "");
    const hasTokens = questions.some((question) => Object.values(question.rounds).flat().some((answer) => answer.tl));
    colour.parentElement.hidden = !hasTokens;
    if (!hasTokens) colour.value = "";
    options(before, columns, columns[0][0]);
    options(now, columns, columns[columns.length - 1][0]);
    chooseFromAddress();
    const rewards = questions.flatMap((question) => columns.map(([key]) => rewardOf(question, key)));
    least = Math.min(...rewards.filter((reward) => reward !== null));
    choose();
  }

  // The address may name filters, as in report.html#show=worse&now=3, so that a view can be sent to somebody.
  function chooseFromAddress() {
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      if (value && name !== "set" && form.elements[name]) form.elements[name].value = value;
    }
  }

  function noteInAddress() {
    const values = [set, level, before, now, show, colour, text].map((field) => [field.name, field.value]);
    history.replaceState(null, "", `#${new URLSearchParams(values.filter(([, value]) => value))}`);
  }

  function contains(question, words) {
    const answers = Object.values(question.rounds).flat();
    const texts = [question.question, question.id, ...answers.flatMap((answer) => [answer.a, answer.u])];
    return texts.some((part) => part.toLowerCase().includes(words));
  }

  function choose() {
    const words = text.value.trim().toLowerCase();
    chosen = questions.filter(
      (question) =>
        (!level.value || question.level === level.value) &&
        SHOWN[show.value](question, before.value, now.value, least) &&
        (!words || contains(question, words)),
    );
    document.getElementById("count").textContent = `${chosen.length} of ${questions.length} questions`;
    cards.replaceChildren();
    shown = 0;
    add();
  }

  function add() {
    cards.append(...chosen.slice(shown, shown + STEP).map((question) => cardOf(question, columns, colour.value)));
    shown += STEP;
    more.hidden = shown >= chosen.length;
  }

  const names = { evaluation: "of the evaluation", rounds: "that rounds learn from" };
  const named = new URLSearchParams(location.hash.slice(1)).get("set");
  options(set, Object.keys(sets).map((name) => [name, names[name]]), named in sets ? named : Object.keys(sets)[0]);
  set.addEventListener("change", () => {
    history.replaceState(null, "", "#");
    chooseSet();
    noteInAddress();
  });
  [level, before, now, show, colour, text].forEach((field) =>
    field.addEventListener("input", () => {
      choose();
      noteInAddress();
    }),
  );
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", add);
  chooseSet();
}

// ---------------------------------------------------------------- start

async function start() {
  const data = JSON.parse(await unpacked("data"));
  showAnswers(data.answers);
  const script = document.head.appendChild(element("script", await unpacked("libraries")));
  script.remove();
  await drawCharts(data.charts);
  dark.addEventListener("change", () => drawCharts(data.charts));
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  const text = `This browser cannot show the charts and answers of the page (${error}). Use one of 2023 or newer.`;
  document.querySelector("main").prepend(element("p", text, "missing"));
});
