"""The two clients of `docs/api.md`: what a program needs to ask, to read a stream, and to read on after a cut."""

PYTHON = """\
import http.client, json, sys, time
from urllib import error, request

URL, TOKEN, QUESTION = sys.argv[1:]


def send(path, body=None, last_id=""):
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Last-Event-ID": last_id}
    return request.urlopen(request.Request(URL + path, body and json.dumps(body).encode(), headers), timeout=60)


def events(response):
    event = {}
    for line in response:
        field, _, value = line.decode().rstrip("\\r\\n").partition(": ")
        if field:
            event[field] = value
        elif "data" in event and not value:  # an empty line ends an event, a comment begins with a colon
            yield event.get("id"), event["event"], json.loads(event["data"])
            event = {}


def ask(question):
    response, last, sources = send("/v1/chat", {"message": question}), "", []
    while True:
        try:
            for number, name, data in events(response):
                last, sources = number or last, data if name == "sources" else sources
                print(data["text"] if name == "token" else "", end="", flush=True)
                if name == "done" or (name == "error" and number):  # without an id only the connection has failed
                    return {"end": data.get("finish_reason") or data["title"], "sources": sources}
        except (OSError, http.client.HTTPException):
            time.sleep(1)
        response = send(f"/v1/answers/{last.partition('.')[0]}/events", last_id=last)  # an id is ANSWER.NUMBER


try:
    print("\\n" + json.dumps(ask(QUESTION), ensure_ascii=False))
except error.HTTPError as refused:
    sys.exit(json.load(refused)["detail"])
"""

JAVASCRIPT = """\
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
    const parts = (text + piece).split(/\\r?\\n\\r?\\n/);
    text = parts.pop();
    for (const part of parts) {
      const { id, event, data } = Object.fromEntries(part.split(/\\r?\\n/).map((line) => line.split(/: (.*)/s)));
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
console.log("\\n" + JSON.stringify(await ask(question)));
"""
