"use strict";
// Shows the episodes of the JSON element "data" (experiments/viewer/page.py): one state at a time, at `step` of `episode`.

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const text = (number) => data.strings[number];

// -- drawing ------------------------------------------------------------------------------------------------------
// MiniGrid's indices of types, colours, door states and directions
const TYPES = ["unseen", "empty", "wall", "floor", "door", "key", "ball", "box", "goal", "lava", "agent"];
const COLOURS = ["red", "green", "blue", "purple", "yellow", "grey"];
const DOORS = ["open", "closed", "locked"];
const DIRECTIONS = ["east", "south", "west", "north"];

function svg(name, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const rectangle = (x, y, width, height, kind) => svg("rect", { x, y, width, height, class: kind });

// A cell's three digits as words.
function decode(code) {
  const [type, colour, state] = [...code].map((digit) => parseInt(digit, 36));
  return { type: TYPES[type] ?? "object", colour: COLOURS[colour] ?? "grey", state: DOORS[state] };
}

function nameOf({ type, colour, state }) {
  if (type === "door") return `${state} ${colour} door`;
  return type === "wall" || type === "lava" ? type : `${colour} ${type}`;
}

// The shapes of an object in a cell of 10 by 10.
const SHAPES = {
  wall: () => [rectangle(0, 0, 10, 10, "wall")],
  floor: () => [rectangle(0, 0, 10, 10, "paint pale")],
  goal: () => [rectangle(0, 0, 10, 10, "paint")],
  lava: () => [
    rectangle(0, 0, 10, 10, "lava"),
    ...[3, 5, 7].map((y) => svg("path", { d: `M1 ${y} q2 -2 4 0 t4 0`, class: "wave" })),
  ],
  key: () => [
    svg("path", {
      d: "M5.6 1 a1.9 1.9 0 0 1 .7 3.66 V8.8 H3.8 V8 H5 V6.7 H3.8 V5.9 H5 V4.66 A1.9 1.9 0 0 1 5.6 1 Z " +
        "M5.6 2.2 a.65 .65 0 1 0 .01 0 Z",
      "fill-rule": "evenodd",
      class: "paint line",
    }),
  ],
  ball: () => [svg("circle", { cx: 5, cy: 5, r: 3.1, class: "paint line" })],
  box: () => [
    svg("rect", { x: 1.6, y: 1.6, width: 6.8, height: 6.8, rx: 0.4, class: "hollow" }),
    svg("path", { d: "M1.6 5 H8.4", class: "hollow" }),
  ],
  door: (state) => {
    if (state === "open") return [rectangle(8.6, 0.2, 1.2, 9.6, "paint line")];
    const frame = svg("rect", { x: 0.5, y: 0.5, width: 9, height: 9, class: "frame" });
    if (state === "locked") return [frame, rectangle(0.5, 0.5, 9, 9, "paint pale"), rectangle(5.2, 4.4, 2.6, 1.2, "paint line")];
    return [frame, rectangle(2.1, 2.1, 5.8, 5.8, "frame"), svg("circle", { cx: 6.4, cy: 5, r: 0.7, class: "paint" })];
  },
};

function drawObject(code, x, y) {
  const object = decode(code);
  const shapes = (SHAPES[object.type] ?? SHAPES.ball)(object.state);
  const title = svg("title", {}, nameOf(object));
  return svg("g", { transform: `translate(${x} ${y})`, class: object.colour, "data-object": nameOf(object) }, title, ...shapes);
}

function drawGrid(picture) {
  const { width, height, agent: [column, row, direction] } = picture;
  const cells = text(picture.cells);
  const visible = text(picture.visible);
  const floor = svg("g", {});
  const objects = svg("g", {});
  const veil = svg("g", {});
  const seen = [];
  for (let place = 0; place < width * height; place += 1) {
    const x = 10 * (place % width);
    const y = 10 * Math.floor(place / width);
    const code = cells.slice(3 * place, 3 * place + 3);
    const inSight = visible[place] === "1";
    floor.append(svg("rect", { x, y, width: 10, height: 10, class: inSight ? "cell seen" : "cell" }));
    if (TYPES[parseInt(code[0], 36)] !== "empty") {
      objects.append(drawObject(code, x, y));
      const object = decode(code);
      if (inSight && object.type !== "wall") seen.push(`${nameOf(object)} at column ${place % width}, row ${Math.floor(place / width)}`);
    }
    if (!inSight) veil.append(rectangle(x, y, 10, 10, "veil"));
  }
  const triangle = svg("path", {
    d: "M-3.6 -3.2 L3.9 0 L-3.6 3.2 Z",
    transform: `translate(${10 * column + 5} ${10 * row + 5}) rotate(${90 * direction})`,
    class: "agent",
  });
  triangle.append(svg("title", {}, `agent, facing ${DIRECTIONS[direction]}`));
  const label = `Grid of ${width} by ${height} cells. Agent at column ${column}, row ${row}, facing ${DIRECTIONS[direction]}. ` +
    (seen.length ? `It sees: ${seen.join("; ")}.` : "It sees no object.");
  return svg("svg", { viewBox: `0 0 ${10 * width} ${10 * height}`, role: "img", "aria-label": label }, floor, objects, veil, triangle);
}

function showPicture(picture) {
  const carried = element("carried");
  carried.replaceChildren();
  if (picture === null) {
    const note = document.createElement("p");
    note.textContent = "This environment draws no picture.";
    element("picture").replaceChildren(note);
    return;
  }
  if ("image" in picture) {
    const image = document.createElement("img");
    image.src = text(picture.image);
    image.alt = "The environment's own picture of this state";
    element("picture").replaceChildren(image);
    return;
  }
  element("picture").replaceChildren(drawGrid(picture));
  const object = decode(picture.carried);
  if (object.type === "empty") {
    carried.textContent = "carries nothing";
    return;
  }
  carried.append("carries ", svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, drawObject(picture.carried, 0, 0)), nameOf(object));
}

// -- the state on show --------------------------------------------------------------------------------------------
let episode = 0;
let step = 0; // as many as there are decisions: the state in which the episode ended
let timer = null;

const steps = () => data.episodes[episode].steps;
// non-finite numbers are stored by their name
const number = (value) => (typeof value === "number" ? value.toFixed(3) : value ?? "—");

// of a probability that three decimals would show as 0, the order of magnitude
const probabilityText = (value) => (value > 0 && value < 0.0005 ? value.toExponential(1) : number(value));

function outcome({ success, gave_up: gaveUp, steps: played, return: total }) {
  return `${success ? "success" : gaveUp ? "the bot gave up" : "no success"} after ${played.length} ${played.length === 1 ? "step" : "steps"}, return ${number(total)}`;
}

function policyRow(decision, candidate) {
  const chosen = candidate === decision.chosen;
  const probability = decision.probabilities[candidate];
  const row = document.createElement("tr");
  row.className = chosen ? "chosen" : "";
  const name = document.createElement("th");
  name.scope = "row";
  name.textContent = text(decision.candidates[candidate]);
  if (chosen) {
    const mark = document.createElement("span");
    mark.className = "mark";
    mark.textContent = "chosen";
    name.append(" ", mark);
  }
  const cell = document.createElement("td");
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.style.setProperty("--share", typeof probability === "number" ? probability : 0);
  const figure = document.createElement("span");
  figure.className = "figure";
  figure.textContent = probabilityText(probability);
  const share = document.createElement("div");
  share.className = "share";
  share.append(bar, figure);
  cell.append(share);
  row.append(name, cell);
  return row;
}

function show() {
  const shown = data.episodes[episode];
  const over = step === steps().length;
  const state = over ? shown.end : steps()[step];
  const before = steps().slice(0, step).reduce((sum, decision) => sum + Number(decision.reward), 0);
  element("mission").textContent = shown.mission || "no mission";
  element("outcome").textContent = outcome(shown);
  element("reset").textContent = `episode ${shown.episode}, reset with seed ${shown.seed}`;
  element("outcome").className = shown.success ? "success" : "failure";
  showPicture(state.picture);
  element("prompt").textContent = text(state.prompt);
  element("action").textContent = over ? (shown.gave_up ? "none: the bot gave up" : "the episode has ended") : text(state.candidates[state.chosen]);
  element("value").textContent = over ? "—" : number(state.value);
  element("reward").textContent = over ? "—" : number(state.reward);
  element("return").textContent = number(before);
  element("policy").hidden = over;
  element("policy").tBodies[0].replaceChildren(...(over ? [] : state.candidates.map((_, candidate) => policyRow(state, candidate))));
  element("slider").max = steps().length;
  element("slider").value = step;
  const position = over ? `end (${step} of ${step})` : `step ${step} of ${steps().length}`;
  element("slider").setAttribute("aria-valuetext", position);
  element("position").textContent = position;
  const focused = document.activeElement;
  element("previous").disabled = step === 0;
  element("next").disabled = over;
  // a disabled button would lose the focus, and with it a keyboard's place
  if (focused?.disabled) element(over ? "previous" : "next").focus();
}

function goTo(place) {
  step = Math.max(0, Math.min(place, steps().length));
  if (step === steps().length) pause();
  show();
}

function choose(number) {
  if (number < 0 || number >= data.episodes.length) return;
  pause();
  episode = number;
  element("episode").value = number;
  goTo(0);
}

function pause() {
  clearInterval(timer);
  timer = null;
  element("play").textContent = "Play";
}

function play() {
  if (step === steps().length) goTo(0);
  timer = setInterval(() => goTo(step + 1), 1000 / Number(element("speed").value));
  element("play").textContent = "Pause";
}

// -- controls -----------------------------------------------------------------------------------------------------
element("previous").addEventListener("click", () => goTo(step - 1));
element("next").addEventListener("click", () => goTo(step + 1));
element("play").addEventListener("click", () => (timer === null ? play() : pause()));
element("slider").addEventListener("input", (event) => goTo(Number(event.target.value)));
element("episode").addEventListener("change", (event) => choose(Number(event.target.value)));
element("speed").addEventListener("change", () => {
  if (timer === null) return;
  pause();
  play();
});

const KEYS = {
  ArrowLeft: () => goTo(step - 1),
  ArrowRight: () => goTo(step + 1),
  Home: () => goTo(0),
  End: () => goTo(steps().length),
  PageUp: () => choose(episode - 1),
  PageDown: () => choose(episode + 1),
  " ": () => (timer === null ? play() : pause()),
};

document.addEventListener("keydown", (event) => {
  if (!(event.key in KEYS) || event.ctrlKey || event.altKey || event.metaKey) return;
  // a focused button keeps its own key, and a list all of its own but the arrows that step
  if (event.key === " " && event.target.closest("button")) return;
  if (event.target.closest("select") && !event.key.startsWith("Arrow")) return;
  event.preventDefault();
  KEYS[event.key]();
});

for (const [name, value] of Object.entries(data.facts)) {
  const pair = document.createElement("div");
  const term = document.createElement("dt");
  const definition = document.createElement("dd");
  term.textContent = name;
  definition.textContent = value;
  pair.append(term, definition);
  element("facts").append(pair);
}
element("prompt").lang = data.language;
data.episodes.forEach((one, place) => {
  const option = document.createElement("option");
  option.value = place;
  option.textContent = `${one.episode}: ${one.mission ? `${one.mission}, ` : ""}${outcome(one)}`;
  element("episode").append(option);
});
show();
