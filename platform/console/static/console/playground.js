// The playground: sends the form, shows the answer as it arrives, can stop it, then shows what it cost.
"use strict";

(() => {
  const root = document.getElementById("playground");
  if (!root) return;
  const byId = (id) => document.getElementById(id);
  const form = byId("composer");
  const turns = byId("turns");
  const send = byId("send");
  const stop = byId("stop");
  const clear = byId("clear");
  const problem = byId("problem");
  const status = byId("status");
  const message = byId("message");
  const isChat = root.dataset.mode === "chat";
  const conversation = [];
  let running = null;

  function element(tag, className, text) {
    const made = document.createElement(tag);
    made.className = className;
    made.textContent = text || "";
    return made;
  }

  function showProblem(text) {
    problem.textContent = text;
    problem.hidden = !text;
  }

  // Text with ``` fences as paragraphs and code blocks; everything stays text, never markup.
  function showAnswer(box, text) {
    const atEnd = window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 120;
    const parts = text.trimStart().split("```");
    box.replaceChildren();
    parts.forEach((part, index) => {
      if (index % 2 === 0) {
        const head = index > 0 ? part.replace(/^\n+/, "") : part;
        box.append(index < parts.length - 1 ? head.replace(/\n+$/, "") : head);
      } else {
        const block = element("pre", "");
        block.append(element("code", "", part.replace(/^[a-z]*\n/, "").replace(/\n$/, "")));
        box.append(block);
      }
    });
    if (atEnd) window.scrollTo(0, document.documentElement.scrollHeight);
  }

  function settings() {
    return {
      model: byId("model").value,
      temperature: Number(byId("temperature").value),
      max_tokens: Number(byId("max_tokens").value),
    };
  }

  // What to send, and where its answer goes: {body, write(text), done(text)}.
  function chatRound() {
    const text = message.value.trim();
    const messages = [...conversation, { role: "user", content: text }];
    turns.append(element("div", "turn user", text));
    const box = element("div", "turn answer");
    turns.append(box);
    message.value = "";
    return {
      body: { mode: "chat", messages, ...settings() },
      write: (answer) => showAnswer(box, answer),
      done(answer) {
        if (answer) conversation.push(messages.at(-1), { role: "assistant", content: answer });
        else if (!message.value) message.value = text;
        if (!answer) box.remove();
      },
    };
  }

  function fimRound() {
    const prefix = byId("prefix").value;
    const suffix = byId("suffix").value;
    const box = element("pre", "turn fim");
    const gap = document.createElement("ins");
    box.append(prefix, gap, suffix);
    turns.replaceChildren(box);
    return {
      body: { mode: "fim", prefix, suffix, ...settings() },
      write: (answer) => { gap.textContent = answer; },
      done(answer) { if (!answer) box.remove(); },
    };
  }

  async function* eventsOf(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let pending = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const frames = (pending + value).split("\n\n");
      pending = frames.pop();
      for (const frame of frames) {
        const [first, second] = frame.split("\n");
        yield { name: first.slice("event: ".length), data: JSON.parse(second.slice("data: ".length)) };
      }
    }
  }

  async function request(body, signal) {
    const token = form.querySelector("[name=csrfmiddlewaretoken]").value;
    const response = await fetch(form.action, {
      method: "POST",
      headers: { "content-type": "application/json", "x-csrftoken": token },
      body: JSON.stringify(body),
      signal,
    });
    if (response.ok) return response;
    const refusal = await response.json().catch(() => null);
    throw new Error(refusal?.error?.message || `The server answered ${response.status}. Reload the page and try again.`);
  }

  function setRunning(controller) {
    running = controller;
    root.classList.toggle("streaming", Boolean(controller));
    send.disabled = Boolean(controller);
    stop.hidden = !controller;
    clear.hidden = Boolean(controller) || !turns.childElementCount;
  }

  function showOutcome(requestId) {
    const box = element("div", "outcome", "Settling the charge…");
    turns.append(box);
    htmx.ajax("GET", root.dataset.outcome.replace("REQUEST", requestId), { target: box, swap: "outerHTML" });
  }

  async function run() {
    if (running || !form.reportValidity()) return;
    showProblem("");
    byId("starter")?.remove();
    const round = isChat ? chatRound() : fimRound();
    const controller = new AbortController();
    let answer = "";
    let requestId = "";
    setRunning(controller);
    status.textContent = "The answer is arriving.";
    try {
      for await (const { name, data } of eventsOf(await request(round.body, controller.signal))) {
        if (name === "start") requestId = data.request_id;
        if (name === "delta") round.write(answer += data.text);
        if (name === "problem") showProblem(data.message);
        if (name === "end" && data.finish_reason === "length") status.textContent = "Stopped at the token limit.";
      }
    } catch (error) {
      if (error.name !== "AbortError") showProblem(error.message);
    }
    round.done(answer);
    setRunning(null);
    status.textContent = "The answer is complete.";
    if (requestId) showOutcome(requestId);
    message?.focus();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  stop.addEventListener("click", () => running?.abort());
  clear.addEventListener("click", () => {
    conversation.length = 0;
    turns.replaceChildren();
    clear.hidden = true;
    message?.focus();
  });
  message?.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      run();
    }
  });
  document.querySelectorAll("[data-suggest]").forEach((button) => {
    button.addEventListener("click", () => {
      message.value = button.textContent.trim();
      run();
    });
  });
})();
