"use strict";
// Every text is set with textContent: no HTML is ever parsed, whatever a model writes.
(() => {
const TEXTS = {
  en: {
    left: "left", right: "right", blind: "blind", settings: "Settings", system: "system text",
    temperature: "temperature", length: "tokens", seed: "seed", key: "API key", send: "Ask",
    stop: "Stop", clear: "Clear", save: "Save as training rows", votes: "Download votes",
    question: "Your question. Enter asks, Shift+Enter starts a new line, Esc stops.",
    copy: "Copy", copied: "Copied", stopped: "stopped", cut: "ended at its length",
    better: name => `${name} is better`, equal: "Equal", unsaved: "There is no answer to save yet.",
    needKey: "This server needs its API key: type it in the settings, and ask again.",
    tally: t => `${t.tuned} is better in ${t.wins} of ${t.votes} decided votes (${t.ties} equal): ` +
      `${t.share}, 95 % interval ${t.low} to ${t.high}, sign test p = ${t.p}`,
    lost: "The connection to the server was lost.", none: "(empty answer)",
  },
  ru: {
    left: "слева", right: "справа", blind: "вслепую", settings: "Настройки", system: "системный текст",
    temperature: "температура", length: "токенов", seed: "seed", key: "ключ API", send: "Спросить",
    stop: "Стоп", clear: "Очистить", save: "Сохранить как обучающие строки", votes: "Скачать голоса",
    question: "Ваш вопрос. Enter — спросить, Shift+Enter — новая строка, Esc — остановить.",
    copy: "Копировать", copied: "Скопировано", stopped: "остановлено", cut: "оборвано по длине",
    better: name => `${name} лучше`, equal: "Поровну", unsaved: "Ещё нет ответа, который можно сохранить.",
    needKey: "Этому серверу нужен ключ API: введите его в настройках и спросите снова.",
    tally: t => `${t.tuned} лучше в ${t.wins} из ${t.votes} решённых голосов (поровну: ${t.ties}): ` +
      `${t.share}, 95 % интервал от ${t.low} до ${t.high}, критерий знаков p = ${t.p}`,
    lost: "Связь с сервером потеряна.", none: "(пустой ответ)",
  },
};
const language = (navigator.language || "en").toLowerCase().startsWith("ru") ? "ru" : "en";
const T = TEXTS[language];
const $ = id => document.getElementById(id);
const settings = JSON.parse(document.body.dataset.settings);
const turns = [];
const votes = [];
let controller = null;

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  if (className) element.className = className;
  return element;
}

// ---- Markdown: a small part of it, as elements -------------------------------------------------
const INLINE = /(`+)([^`]+?)\1|\*\*([^*]+?)\*\*|(?<![\w*])\*([^*\s][^*]*?)\*(?![\w*])/g;

function inline(parent, text) {
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    parent.append(text.slice(end, match.index));
    if (match[2] !== undefined) parent.append(make("code", match[2].trim() || match[2]));
    else if (match[3] !== undefined) parent.append(make("strong", match[3]));
    else parent.append(make("em", match[4]));
    end = match.index + match[0].length;
  }
  parent.append(text.slice(end));
}

function lines(parent, texts) {
  texts.forEach((text, i) => {
    if (i) parent.append(make("br"));
    inline(parent, text);
  });
}

function markdown(parent, text) {
  parent.replaceChildren();
  const rows = text.split("\n");
  const kind = row => (/^\s*```/.test(row) ? "code" : /^#{1,6}\s/.test(row) ? "title"
    : /^\s*[-*+]\s+\S/.test(row) ? "ul" : /^\s*\d{1,9}[.)]\s+\S/.test(row) ? "ol"
    : /^\s*>/.test(row) ? "quote" : row.trim() ? "text" : "blank");
  for (let i = 0; i < rows.length;) {
    const now = kind(rows[i]);
    if (now === "blank") { i += 1; continue; }
    if (now === "code") {
      const from = i + 1;
      for (i = from; i < rows.length && !/^\s*```\s*$/.test(rows[i]); i += 1);
      const block = make("pre");
      block.append(make("code", rows.slice(from, i).join("\n")));
      parent.append(block);
      i += 1;
      continue;
    }
    if (now === "title") {
      const title = make(/^#\s/.test(rows[i]) ? "h3" : "h4");
      inline(title, rows[i].replace(/^#+\s+/, ""));
      parent.append(title);
      i += 1;
      continue;
    }
    const from = i;
    while (i < rows.length && kind(rows[i]) === now) i += 1;
    const part = rows.slice(from, i);
    if (now === "ul" || now === "ol") {
      const list = make(now);
      if (now === "ol") list.start = parseInt(part[0], 10);
      for (const row of part) {
        const item = make("li");
        inline(item, row.replace(/^\s*(?:[-*+]|\d+[.)])\s+/, ""));
        list.append(item);
      }
      parent.append(list);
    } else {
      const block = make(now === "quote" ? "blockquote" : "p");
      lines(block, now === "quote" ? part.map(row => row.replace(/^\s*>\s?/, "")) : part);
      parent.append(block);
    }
  }
}

// ---- The server --------------------------------------------------------------------------------
function headers() {
  const key = $("key").value;
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function refusal(response) {
  if (response.status === 401) {
    $("key-label").hidden = false;
    $("settings").open = true;
    return T.needKey;
  }
  try {
    return (await response.json()).error.message;
  } catch {
    return `HTTP ${response.status}`;
  }
}

// Calls show with the text so far; returns why the answer ended.
async function stream(model, messages, options, signal, show) {
  const response = await fetch("v1/chat/completions", {
    method: "POST", signal,
    headers: { "Content-Type": "application/json", ...headers() },
    body: JSON.stringify({ model, messages, stream: true, ...options }),
  });
  if (!response.ok) throw new Error(await refusal(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "", text = "", reason = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error(T.lost);
    buffer += value;
    const events = buffer.split("\n\n");
    buffer = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return reason;
      const body = JSON.parse(data);
      if (body.error) throw new Error(body.error.message);
      const choice = body.choices[0];
      if (choice && choice.delta.content) show(text += choice.delta.content);
      if (choice && choice.finish_reason) reason = choice.finish_reason;
    }
  }
}

// ---- A turn ------------------------------------------------------------------------------------
function chosen() {
  const names = [$("left").value];
  if (settings.models.length > 1) names.push($("right").value);
  return names;
}

function history(model, question) {
  const system = $("system").value.trim();
  const messages = system ? [{ role: "system", content: system }] : [];
  for (const turn of turns) {
    const cell = turn.cells.find(cell => cell.model === model);
    if (cell && cell.text) {
      messages.push({ role: "user", content: turn.question }, { role: "assistant", content: cell.text });
    }
  }
  return [...messages, { role: "user", content: question }];
}

function cellFor(model, title, parent) {
  const cell = { model, text: "", element: make("article", "", "answer") };
  cell.title = make("span", title);
  cell.note = make("span", "", "note");
  const copy = make("button", T.copy);
  copy.type = "button";
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(cell.text);
    copy.textContent = T.copied;
    setTimeout(() => { copy.textContent = T.copy; }, 1500);
  });
  const head = make("div", "", "head");
  head.append(cell.title, cell.note, copy);
  cell.body = make("div", "", "text");
  cell.body.setAttribute("aria-live", "polite");
  cell.element.append(head, cell.body);
  parent.append(cell.element);
  return cell;
}

async function ask(question) {
  const names = chosen();
  const blind = $("blind").checked && names.length === 2 && names[0] !== names[1];
  const options = { temperature: Number($("temperature").value), seed: Number($("seed").value) };
  // Without a length the server takes what the model's context leaves.
  if ($("length").value) options.max_tokens = Number($("length").value);
  const turn = { question, system: $("system").value.trim(), blind, options, cells: [] };
  const order = blind && crypto.getRandomValues(new Uint8Array(1))[0] % 2 ? [...names].reverse() : names;
  const element = make("section", "", "turn");
  const answers = make("div", "", "answers");
  element.append(make("div", question, "question"), answers);
  $("turns").append(element);
  const prompts = order.map(name => history(name, question));
  turn.cells = order.map((name, i) => cellFor(name, blind ? "AB"[i] : name, answers));
  turns.push(turn);
  turn.element = element;
  controller = new AbortController();
  const { signal } = controller;
  busy(true);
  $("notice").textContent = "";
  element.scrollIntoView({ block: "nearest" });
  const results = await Promise.all(turn.cells.map(async (cell, i) => {
    try {
      const reason = await stream(cell.model, prompts[i], options, signal, text => {
        cell.text = text;
        markdown(cell.body, text);
      });
      if (reason === "length") cell.note.textContent = T.cut;
      if (!cell.text.trim()) cell.note.textContent = T.none;
      return true;
    } catch (error) {
      cell.note.textContent = signal.aborted ? T.stopped : "";
      if (!signal.aborted) $("notice").textContent = error.message;
      return false;
    }
  }));
  busy(false);
  if (turn.cells.every(cell => !cell.text)) {
    if (results.includes(false)) {
      // Nothing was answered: the question goes back to where it was typed.
      element.remove();
      turns.pop();
      if (!$("question").value) $("question").value = question;
    }
  } else if (blind && results.every(Boolean)) offerVote(turn);
  else if (blind) reveal(turn);
  $("question").focus();
}

function busy(now) {
  $("send").disabled = now;
  $("stop").disabled = !now;
  $("clear").disabled = now;
  for (const id of ["left", "right", "blind"]) $(id).disabled = now;
  if (!now) controller = null;
}

// ---- Blind votes -------------------------------------------------------------------------------
function offerVote(turn) {
  const bar = make("div", "", "vote");
  const choices = [[T.better("A"), 0], [T.equal, null], [T.better("B"), 1]];
  for (const [text, side] of choices) {
    const button = make("button", text);
    button.type = "button";
    button.addEventListener("click", () => {
      bar.remove();
      vote(turn, side);
    });
    bar.append(button);
  }
  turn.element.append(bar);
  bar.scrollIntoView({ block: "nearest" });
}

function reveal(turn) {
  for (const cell of turn.cells) cell.title.textContent = cell.model;
}

async function vote(turn, side) {
  reveal(turn);
  votes.push({
    question: turn.question, system: turn.system, ...turn.options,
    preferred: side === null ? null : turn.cells[side].model,
    answers: turn.cells.map(cell => ({ model: cell.model, text: cell.text })),
  });
  $("votes").hidden = false;
  await tally();
}

async function tally() {
  // The votes on the pair of models that is chosen now.
  const [base, tuned] = chosen();
  const counted = votes.filter(vote => [base, tuned].every(
    name => vote.answers.some(answer => answer.model === name)));
  const wins = counted.filter(vote => vote.preferred === tuned).length;
  const losses = counted.filter(vote => vote.preferred === base).length;
  $("tally").hidden = !counted.length;
  if (!counted.length) return;
  try {
    const response = await fetch(`votes/interval?wins=${wins}&losses=${losses}`, { headers: headers() });
    if (!response.ok) throw new Error(await refusal(response));
    const result = await response.json();
    const percent = share => `${(100 * share).toFixed(0)} %`;
    $("tally").textContent = T.tally({ tuned, wins, votes: result.votes, ties: counted.length - wins - losses,
      share: percent(result.share), low: percent(result.low), high: percent(result.high),
      p: result.p_value.toFixed(3) });
  } catch (error) {
    $("notice").textContent = error.message;
  }
}

// ---- Files -------------------------------------------------------------------------------------
function download(name, text, type) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// One row for each model on the page that has answered.
function rows() {
  const models = [...new Set(turns.flatMap(turn => turn.cells.map(cell => cell.model)))];
  return models.map(model => {
    const answered = turns.filter(turn => turn.cells.some(cell => cell.model === model && cell.text.trim()));
    const system = answered.length ? answered.at(-1).system : "";
    const messages = system ? [{ role: "system", content: system }] : [];
    for (const turn of answered) {
      const text = turn.cells.find(cell => cell.model === model).text.trim();
      messages.push({ role: "user", content: turn.question }, { role: "assistant", content: text });
    }
    return { model, answered: answered.length, messages };
  }).filter(row => row.answered);
}

function save() {
  const saved = rows();
  $("notice").textContent = saved.length ? "" : T.unsaved;
  for (const row of saved) {
    download(`conversation-${row.model}.jsonl`, `${JSON.stringify({ messages: row.messages })}\n`,
      "application/jsonl");
  }
}

function saveVotes() {
  const file = { format: "lit-lora votes 1", date: new Date().toISOString().slice(0, 10), votes };
  download("votes.json", `${JSON.stringify(file, null, 1)}\n`, "application/json");
}

// ---- Start -------------------------------------------------------------------------------------
document.documentElement.lang = language;
for (const element of document.querySelectorAll("[data-t]")) element.textContent = T[element.dataset.t];
$("question").placeholder = T.question;
$("question").setAttribute("aria-label", T.question);
for (const id of ["left", "right"]) {
  for (const name of settings.models) $(id).append(new Option(name, name));
  $(id).addEventListener("change", tally);
}
const several = settings.models.length > 1;
$("right").value = settings.models[several ? 1 : 0];
$("right-label").hidden = $("blind-label").hidden = !several;
$("temperature").value = settings.temperature;
$("length").placeholder = settings.max_tokens;
$("seed").value = settings.seed;
$("key").value = sessionStorage.getItem("key") || "";
$("key-label").hidden = !$("key").value;
$("key").addEventListener("change", () => sessionStorage.setItem("key", $("key").value));
$("form").addEventListener("submit", event => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || controller) return;
  $("question").value = "";
  ask(question);
});
$("question").addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
});
document.addEventListener("keydown", event => {
  if (event.key === "Escape" && controller) controller.abort();
});
$("stop").addEventListener("click", () => controller && controller.abort());
$("clear").addEventListener("click", () => {
  turns.length = 0;
  $("turns").replaceChildren();
  $("notice").textContent = "";
  $("question").focus();
});
$("save").addEventListener("click", save);
$("votes").addEventListener("click", saveVotes);
$("question").focus();
})();
