"""Ask one question of the chat API, and end with 0 where the answer cites a document.

`helm test` and compose run it in the chatbot's image. Environment: URL, TOKEN, QUESTION, SECONDS (the longest wait).
"""

import json
import os
import sys
import urllib.error
import urllib.request

question = json.dumps({"message": os.environ["QUESTION"], "stream": False}).encode()
headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ['TOKEN'].strip()}"}
ask = urllib.request.Request(f"{os.environ['URL']}/v1/chat", question, headers)
try:
    with urllib.request.urlopen(ask, timeout=float(os.environ["SECONDS"])) as reply:
        answer = json.load(reply)
except urllib.error.HTTPError as refused:
    sys.exit(f"refused with {refused.code}: {refused.read(500).decode(errors='replace')}")
print(f"Q  {os.environ['QUESTION']}\nA  {answer['text']}")
for citation in answer["citations"]:
    print(f"   [{citation['n']}] {citation['document_id']}, version {citation['version']}: {citation['quote']}")
if answer["finish_reason"] != "stop" or not answer["citations"]:
    sys.exit(f"not an answer from documents: {answer['finish_reason']}")
