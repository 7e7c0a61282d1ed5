const [url, token, question] = process.argv.slice(2);
async function request(path, { lastId, ...options } = {}) {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  if (lastId) headers["last-event-id"] = lastId;
  const response = await fetch(url + path, { ...options, headers });
  if (!response.ok) throw new Error((await response.json()).detail);
  return response;
}
async function* events(response) {
  let text = "";
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    const parts = (text + piece).split(/\r?\n\r?\n/);
    text = parts.pop();
    for (const part of parts) {
      const { id, event, data } = Object.fromEntries(part.split(/\r?\n/).map((line) => line.split(/: (.*)/s)));
      if (data) yield { id, name: event, data: JSON.parse(data) }; // else it is a comment
    }
  }
}

async function ask(message) {
  let response = await request("/v1/chat", { method: "POST", body: JSON.stringify({ message }) });
  let answer, lastId, sources;
  for (;;) {
    try {
      for await (const { id, name, data } of events(response)) {
        lastId = id ?? lastId;
        if (name === "accepted") answer = data.answer_id;
        else if (name === "sources") sources = data;
        if (name === "token") process.stdout.write(data.text);
        const isOver = name === "done" || (name === "error" && id); // without an id only the connection has failed
        if (isOver) return { end: data.finish_reason ?? data.title, sources };
      }
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    response = await request(`/v1/answers/${answer}/events`, { lastId });
  }
}
console.log("\n" + JSON.stringify(await ask(question)));
