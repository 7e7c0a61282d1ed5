import http.client, json, sys, time
from urllib import error, request

URL, TOKEN, QUESTION = sys.argv[1:]


def send(path, body=None, last_id=""):
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Last-Event-ID": last_id}
    return request.urlopen(request.Request(URL + path, body and json.dumps(body).encode(), headers), timeout=60)


def events(response):
    event = {}
    for line in response:
        field, _, value = line.decode().rstrip("\r\n").partition(": ")
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
    print("\n" + json.dumps(ask(QUESTION), ensure_ascii=False))
except error.HTTPError as refused:
    sys.exit(json.load(refused)["detail"])
