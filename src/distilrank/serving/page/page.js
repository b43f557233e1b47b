"use strict";
const at = (id) => document.getElementById(id);

function say(text, bad) {
  at("said").textContent = text;
  at("said").className = bad ? "bad" : "";
}

function headers() {
  const key = at("key").value;
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  if (answer.status === 401) at("locked").hidden = false;
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error || `the server answered ${answer.status}`);
  return found;
}

function shown(rank, place, text) {
  const item = document.createElement("li");
  const [body, score, moved] = ["text", "score", "moved"].map((name) => {
    const part = document.createElement(name === "moved" ? "span" : "div");
    part.className = name;
    return part;
  });
  const by = rank.index - place;
  body.textContent = text;
  score.textContent = rank.score.toFixed(3).replace("-", "\u2212");
  moved.textContent = by > 0 ? `\u25b2${by}` : by < 0 ? `\u25bc${-by}` : "\u00a0";
  score.append(moved);
  const bar = document.createElement("meter");
  bar.value = 1 / (1 + Math.exp(-rank.score));
  bar.setAttribute("aria-label", `sigmoid ${bar.value.toFixed(3)}`);
  item.append(body, score, bar);
  return item;
}

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const texts = at("texts").value.split("\n").filter((line) => line.trim());
  const button = event.target.querySelector("button");
  button.disabled = true;
  say("…");
  const start = performance.now();
  try {
    const body = JSON.stringify({ query: at("query").value, texts, raw_scores: true });
    const ranks = await ask("rerank", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    at("order").replaceChildren(...ranks.map((rank, place) => shown(rank, place, texts[rank.index])));
    at("found").hidden = false;
    say(`${texts.length} passage${texts.length === 1 ? "" : "s"} in ${Math.round(performance.now() - start)} ms`);
  } catch (error) {
    say(error.message, true);
  } finally {
    button.disabled = false;
  }
});

ask("info").then((info) => {
  at("model").textContent = info.model_id;
  at("about").firstChild.textContent = `${info.model_dtype}, ${info.max_input_length} tokens, distilrank ${info.version}. `;
}).catch(() => {});
